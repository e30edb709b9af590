#include "json_check.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

// What may come next. The two that end with _OR_END come right behind an opening bracket.
enum expect { VALUE, VALUE_OR_END, KEY, KEY_OR_END, COLON, COMMA_OR_END, NOTHING };

struct text {
    const unsigned char *at, *end;
};

static const char *const not_json = "this is not JSON";

static int peek(const struct text *text)
{
    return text->at < text->end ? *text->at : -1;
}

static bool take(struct text *text, int wanted)
{
    bool there = peek(text) == wanted;
    text->at += there;
    return there;
}

static bool is_digit(int byte)
{
    return byte >= '0' && byte <= '9';
}

static bool take_digits(struct text *text)
{
    const unsigned char *start = text->at;
    while (is_digit(peek(text)))
        text->at++;
    return text->at > start;
}

static const char *number(struct text *text)
{
    const unsigned char *start = text->at;
    take(text, '-');
    if (!take(text, '0') && !take_digits(text))
        return not_json;
    if (take(text, '.') && !take_digits(text))
        return "a number ends in its point";
    if (take(text, 'e') || take(text, 'E')) {
        if (!take(text, '-'))
            take(text, '+');
        if (!take_digits(text))
            return "a number lacks its exponent";
    }
    return text->at - start > JSON_NUMBER_MAX ? "a number is longer than 1,024 characters" : NULL;
}

static const char *word(struct text *text, const char *wanted)
{
    size_t length = strlen(wanted);
    if ((size_t)(text->end - text->at) < length || memcmp(text->at, wanted, length) != 0)
        return not_json;
    text->at += length;
    return NULL;
}

static bool take_hex(struct text *text)
{
    int byte = peek(text);
    bool there = is_digit(byte) || (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
    text->at += there;
    return there;
}

static const char *escape(struct text *text)
{
    int byte = peek(text);
    if (byte <= 0 || !strchr("\"\\/bfnrtu", byte))
        return "a string has an escape that JSON does not know";
    text->at++;
    for (int i = 0; byte == 'u' && i < 4; i++)
        if (!take_hex(text))
            return "a \\u escape lacks its four digits";
    return NULL;
}

// One character beyond ASCII: no longer than it must be, no half of a pair, none past the last.
static bool take_utf8(struct text *text)
{
    unsigned lead = *text->at++, low = 0x80, high = 0xbf;
    int more = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
    if (lead < 0xc2 || lead > 0xf4)
        return false;
    if (lead == 0xe0)
        low = 0xa0;
    else if (lead == 0xed)
        high = 0x9f;
    else if (lead == 0xf0)
        low = 0x90;
    else if (lead == 0xf4)
        high = 0x8f;
    for (; more > 0; more--, low = 0x80, high = 0xbf) {
        int byte = peek(text);
        if (byte < (int)low || byte > (int)high)
            return false;
        text->at++;
    }
    return true;
}

static const char *string(struct text *text)
{
    const char *problem = NULL;
    text->at++;
    while (!problem && !take(text, '"')) {
        int byte = peek(text);
        if (byte < 0)
            return "a string does not end";
        if (byte < ' ')
            return "a string holds a control character";
        if (byte >= 0x80) {
            if (!take_utf8(text))
                return "the text is not UTF-8";
        } else {
            text->at++;
            if (byte == '\\')
                problem = escape(text);
        }
    }
    return problem;
}

static const char *scalar(struct text *text)
{
    switch (peek(text)) {
    case '"':
        return string(text);
    case 't':
        return word(text, "true");
    case 'f':
        return word(text, "false");
    case 'n':
        return word(text, "null");
    default:
        return number(text);
    }
}

// Where we are: the kind of each array or object that is open is a bit, the innermost the lowest.
struct place {
    unsigned depth;
    uint64_t objects;
};

static const char *open_one(struct place *place, bool object, enum expect *expect)
{
    if (place->depth == JSON_DEPTH_MAX)
        return "the value is nested more than 64 deep";
    place->depth++;
    place->objects = place->objects << 1 | object;
    *expect = object ? KEY_OR_END : VALUE_OR_END;
    return NULL;
}

static void value_ended(const struct place *place, enum expect *expect)
{
    *expect = place->depth ? COMMA_OR_END : NOTHING;
}

static const char *value(struct text *text, struct place *place, enum expect *expect)
{
    if (take(text, '{'))
        return open_one(place, true, expect);
    if (take(text, '['))
        return open_one(place, false, expect);
    value_ended(place, expect);
    return scalar(text);
}

static const char *step(struct text *text, struct place *place, enum expect *expect)
{
    bool in_object = place->objects & 1;
    bool may_end = *expect == VALUE_OR_END || *expect == KEY_OR_END || *expect == COMMA_OR_END;
    if (may_end && take(text, in_object ? '}' : ']')) {
        place->depth--;
        place->objects >>= 1;
        value_ended(place, expect);
        return NULL;
    }
    switch (*expect) {
    case VALUE:
    case VALUE_OR_END:
        return value(text, place, expect);
    case KEY:
    case KEY_OR_END:
        *expect = COLON;
        return peek(text) == '"' ? string(text) : "an object has a key that is no string";
    case COLON:
        *expect = VALUE;
        return take(text, ':') ? NULL : "a key lacks its colon";
    case COMMA_OR_END:
        *expect = in_object ? KEY : VALUE;
        return take(text, ',') ? NULL : "a comma or a closing bracket is missing";
    default:
        return "something follows the value";
    }
}

const char *json_problem(const char *bytes, size_t length)
{
    struct text text = {(const unsigned char *)bytes, (const unsigned char *)bytes + length};
    struct place place = {0};
    enum expect expect = VALUE;
    for (;;) {
        while (peek(&text) == ' ' || peek(&text) == '\t' || peek(&text) == '\r')
            text.at++;
        if (peek(&text) == '\n')
            return "there is a line feed in it";
        if (text.at == text.end)
            return expect == NOTHING ? NULL : length ? "the value is not complete" : "there is no value";
        const char *problem = step(&text, &place, &expect);
        if (problem)
            return problem;
    }
}
