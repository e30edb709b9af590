// For tests: judges frames with the agent's own codec. One line of input is one case, "g HEX" (to the guest) or "h HEX"
// (to the host). One line of output answers it: the fault, or "ok TYPE FLAGS SLOT SESSION LENGTH VALUE REENCODED",
// where VALUE tells the body as msgpack ("-" when it is none) and REENCODED is what the writer makes of it again.
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "../frames.h"
#include "../msgpack.h"

enum { DEPTH_MAX = 32 };

static size_t from_hex(const char *text, uint8_t *bytes, size_t most)
{
    size_t count = 0;
    unsigned byte;
    while (count < most && sscanf(text, "%2x", &byte) == 1) {
        bytes[count++] = (uint8_t)byte;
        text += 2;
    }
    return count;
}

static void print_hex(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        printf("%02x", bytes[i]);
}

// Prints one value as text without spaces and writes it again.
static bool copy_value(struct mp_reader *reader, struct mp_writer *writer, int depth)
{
    struct mp_value value;
    if (depth > DEPTH_MAX || !mp_read(reader, &value))
        return false;
    switch (value.type) {
    case MP_NIL:
        printf("nil");
        mp_write_nil(writer);
        return true;
    case MP_INT:
        printf("%lld", (long long)value.number);
        mp_write_int(writer, value.number);
        return true;
    case MP_BOOL:
        printf(value.number ? "true" : "false");
        mp_write_bool(writer, value.number != 0);
        return true;
    case MP_STR:
    case MP_BIN:
        printf(value.type == MP_STR ? "s" : "b");
        print_hex(value.bytes, value.count);
        mp_write_bytes(writer, value.type, value.bytes, value.count);
        return true;
    case MP_ARRAY:
    case MP_MAP: {
        bool is_map = value.type == MP_MAP;
        uint64_t items = is_map ? 2 * (uint64_t)value.count : value.count;
        if (is_map)
            mp_write_map(writer, value.count);
        else
            mp_write_array(writer, value.count);
        printf(is_map ? "{" : "[");
        for (uint64_t i = 0; i < items; i++) {
            if (!copy_value(reader, writer, depth + 1))
                return false;
            printf(is_map && i % 2 == 0 ? ":" : ",");
        }
        printf(is_map ? "}" : "]");
        return true;
    }
    default: // not used by the protocol
        printf("?");
        return false;
    }
}

static void judge(enum direction direction, const uint8_t *bytes, size_t count)
{
    static struct parser parser;
    static uint8_t again[BODY_MAX];
    struct header header;
    const uint8_t *body = NULL;
    enum frame_fault fault = FRAME_OK;
    enum parsed parsed = PARSED_PART;
    parser = (struct parser){.direction = direction};
    for (size_t done = 0; parsed == PARSED_PART && done < count;) { // in pieces of 7, as a stream may bring them
        size_t room, piece = count - done < 7 ? count - done : 7;
        memcpy(parser_space(&parser, &room), bytes + done, piece);
        parser_filled(&parser, piece);
        done += piece;
        parsed = parser_next(&parser, &header, &body, &fault);
    }
    if (parsed != PARSED_FRAME) {
        printf("%s\n", parsed == PARSED_FAULT ? frame_fault_code(fault) : "incomplete");
        return;
    }
    uint8_t encoded[HEADER_SIZE];
    header_encode(&header, encoded);
    if (memcmp(encoded, bytes, HEADER_SIZE) != 0) {
        printf("header_differs\n");
        return;
    }
    printf("ok %u %u %u %u %u ", header.type, header.flags, header.slot, header.session, header.length);
    struct mp_reader reader = {.at = body, .end = body + header.length};
    struct mp_writer writer = {.at = again, .end = again + sizeof again};
    bool whole = header.length > 0 && copy_value(&reader, &writer, 0) && mp_at_end(&reader);
    printf(whole ? " " : "- ");
    if (whole)
        print_hex(again, (size_t)(writer.at - again));
    printf("\n");
}

int main(void)
{
    static char line[2 * (HEADER_SIZE + BODY_MAX) + 16];
    static uint8_t bytes[HEADER_SIZE + BODY_MAX];
    while (fgets(line, sizeof line, stdin)) {
        size_t count = strlen(line) > 2 ? from_hex(line + 2, bytes, sizeof bytes) : 0;
        judge(line[0] == 'g' ? TO_GUEST : TO_HOST, bytes, count);
    }
    return 0;
}
