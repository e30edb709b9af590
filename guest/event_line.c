#include "event_line.h"

#include <string.h>

#include "json_check.h"

static const char *const bad_name = "a name is 1 to 128 letters, digits, '.', '_' and '-'";

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r';
}

static struct mp_text trimmed(struct mp_text text)
{
    for (; text.length && is_blank(*text.bytes); text.length--)
        text.bytes++;
    while (text.length && is_blank(text.bytes[text.length - 1]))
        text.length--;
    return text;
}

// Cuts the first word off; empty when there is none.
static struct mp_text next_word(struct mp_text *rest)
{
    *rest = trimmed(*rest);
    struct mp_text word = {rest->bytes, 0};
    while (word.length < rest->length && !is_blank(word.bytes[word.length]))
        word.length++;
    *rest = (struct mp_text){rest->bytes + word.length, rest->length - word.length};
    return word;
}

static bool text_is(struct mp_text text, const char *wanted)
{
    return text.length == strlen(wanted) && memcmp(text.bytes, wanted, text.length) == 0;
}

bool event_name_is_valid(struct mp_text name)
{
    for (size_t i = 0; i < name.length; i++)
        if (!name.bytes[i] ||
            !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", name.bytes[i]))
            return false;
    return name.length >= 1 && name.length <= EVENT_NAME_MAX;
}

const char *event_payload_problem(struct mp_text payload)
{
    if (payload.length > EVENT_MAX)
        return "the value is longer than 64 KiB";
    return json_problem(payload.bytes, payload.length);
}

static const char *parse_emit(struct mp_text rest, struct event_request *request)
{
    request->kind = REQUEST_EMIT;
    request->name = next_word(&rest);
    request->json = trimmed(rest);
    return event_name_is_valid(request->name) ? event_payload_problem(request->json) : bad_name;
}

static const char *parse_listen(struct mp_text rest, struct event_request *request)
{
    struct mp_text first = next_word(&rest), second = next_word(&rest);
    // A single word that is a policy is one; to listen to an event of that name takes the policy behind it.
    bool first_is_policy = !second.length && (text_is(first, "newest") || text_is(first, "oldest"));
    struct mp_text policy = first_is_policy ? first : second;
    request->kind = REQUEST_LISTEN;
    request->name = first_is_policy ? (struct mp_text){0} : first;
    request->drop_oldest = !text_is(policy, "newest");
    if (request->name.length && !event_name_is_valid(request->name))
        return bad_name;
    if (trimmed(rest).length || (policy.length && request->drop_oldest && !text_is(policy, "oldest")))
        return "say: listen [NAME] [newest|oldest]";
    return NULL;
}

const char *event_request_parse(struct mp_text line, struct event_request *request)
{
    *request = (struct event_request){0};
    if (line.length > EVENT_LINE_MAX)
        return "the line is too long";
    struct mp_text word = next_word(&line);
    if (text_is(word, "emit"))
        return parse_emit(line, request);
    if (text_is(word, "listen"))
        return parse_listen(line, request);
    return "say: emit NAME JSON, or: listen [NAME] [newest|oldest]";
}
