#include "frames.h"

#include <string.h>

enum session_rule { SESSION_NEVER, SESSION_ALWAYS, SESSION_EITHER };

static const struct {
    uint8_t directions;
    uint8_t flags;
    uint8_t session;
} rules[FRAME_TYPES] = {
    [HELLO] = {TO_HOST, 0, SESSION_NEVER},
    [CONFIGURE] = {TO_GUEST, 0, SESSION_NEVER},
    [READY] = {TO_HOST, 0, SESSION_NEVER},
    [BOOT_FAILED] = {TO_HOST, 0, SESSION_NEVER},
    [PING] = {TO_GUEST, 0, SESSION_NEVER},
    [PONG] = {TO_HOST, 0, SESSION_NEVER},
    [SHUTDOWN] = {TO_GUEST, 0, SESSION_NEVER},
    [GOODBYE] = {TO_HOST, 0, SESSION_NEVER},
    [CLOCK] = {TO_GUEST, 0, SESSION_NEVER},
    [CLIENT_GONE] = {TO_GUEST, 0, SESSION_NEVER},
    [IDENTIFY] = {TO_GUEST, 0, SESSION_NEVER},
    [FREEZE] = {TO_GUEST, 0, SESSION_NEVER},
    [FROZEN] = {TO_HOST, 0, SESSION_NEVER},
    [THAW] = {TO_GUEST, 0, SESSION_NEVER},
    [ERROR] = {TO_HOST, 0, SESSION_EITHER},
    [EXEC] = {TO_GUEST, FLAG_MORE, SESSION_ALWAYS},
    [STARTED] = {TO_HOST, 0, SESSION_ALWAYS},
    [FAILED] = {TO_HOST, 0, SESSION_ALWAYS},
    [STDIN] = {TO_GUEST, FLAG_END, SESSION_ALWAYS},
    [STDOUT] = {TO_HOST, 0, SESSION_ALWAYS},
    [STDERR] = {TO_HOST, 0, SESSION_ALWAYS},
    [EXITED] = {TO_HOST, 0, SESSION_ALWAYS},
    [SIGNAL] = {TO_GUEST, 0, SESSION_ALWAYS},
    [KILL] = {TO_GUEST, 0, SESSION_ALWAYS},
    [CREDIT] = {TO_GUEST | TO_HOST, 0, SESSION_ALWAYS},
    [STDIN_CLOSED] = {TO_HOST, 0, SESSION_ALWAYS},
    [RESIZE] = {TO_GUEST, 0, SESSION_ALWAYS},
    [DEADLINE] = {TO_GUEST, 0, SESSION_ALWAYS},
    [FS] = {TO_GUEST, FLAG_MORE, SESSION_ALWAYS},
    [DONE] = {TO_HOST, 0, SESSION_ALWAYS},
    [EMIT] = {TO_GUEST, FLAG_MORE, SESSION_ALWAYS},
    [SUBSCRIBE] = {TO_GUEST, 0, SESSION_ALWAYS},
};

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void put32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

void header_encode(const struct header *header, uint8_t bytes[HEADER_SIZE])
{
    put32(bytes, header->length);
    bytes[4] = header->type;
    bytes[5] = header->flags;
    bytes[6] = (uint8_t)header->slot;
    bytes[7] = (uint8_t)(header->slot >> 8);
    put32(bytes + 8, header->session);
    put32(bytes + 12, 0);
}

enum frame_fault header_decode(const uint8_t bytes[HEADER_SIZE], enum direction direction, struct header *header)
{
    header->length = get32(bytes);
    header->type = bytes[4];
    header->flags = bytes[5];
    header->slot = (uint16_t)(bytes[6] | bytes[7] << 8);
    header->session = get32(bytes + 8);
    if (header->length > BODY_MAX)
        return FRAME_BAD_LENGTH;
    if (get32(bytes + 12) != 0)
        return FRAME_BAD_RESERVED;
    if (header->type >= FRAME_TYPES || rules[header->type].directions == 0)
        return FRAME_BAD_TYPE;
    if (!(rules[header->type].directions & direction))
        return FRAME_BAD_DIRECTION;
    if (header->flags & ~rules[header->type].flags)
        return FRAME_BAD_FLAGS;
    if (rules[header->type].session != SESSION_EITHER &&
        (header->session != 0) != (rules[header->type].session == SESSION_ALWAYS))
        return FRAME_BAD_SESSION;
    return FRAME_OK;
}

const char *frame_fault_code(enum frame_fault fault)
{
    static const char *const codes[] = {
        [FRAME_OK] = "ok",
        [FRAME_BAD_LENGTH] = "bad_length",
        [FRAME_BAD_RESERVED] = "bad_reserved",
        [FRAME_BAD_TYPE] = "bad_type",
        [FRAME_BAD_DIRECTION] = "bad_direction",
        [FRAME_BAD_FLAGS] = "bad_flags",
        [FRAME_BAD_SESSION] = "bad_session",
    };
    return codes[fault];
}

uint8_t *parser_space(struct parser *parser, size_t *room)
{
    // Less than one frame is unparsed here. No more is asked for than completes it, so the next one begins at the front
    // and nothing has to be moved but the little that small frames leave before a large one.
    size_t have = parser->end - parser->start;
    if (have == 0 || parser->start > sizeof parser->bytes - HEADER_SIZE - BODY_MAX) {
        memmove(parser->bytes, parser->bytes + parser->start, have);
        parser->start = 0;
        parser->end = have;
    }
    *room = sizeof parser->bytes - parser->end;
    if (have >= HEADER_SIZE)
        *room = HEADER_SIZE + get32(parser->bytes + parser->start) - have;
    return parser->bytes + parser->end;
}

void parser_filled(struct parser *parser, size_t count)
{
    parser->end += count;
}

bool parser_is_empty(const struct parser *parser)
{
    return parser->start == parser->end;
}

enum parsed parser_next(struct parser *parser, struct header *header, const uint8_t **body, enum frame_fault *fault)
{
    size_t have = parser->end - parser->start;
    if (have < HEADER_SIZE)
        return PARSED_PART;
    *fault = header_decode(parser->bytes + parser->start, parser->direction, header);
    if (*fault != FRAME_OK)
        return PARSED_FAULT;
    if (have < HEADER_SIZE + header->length)
        return PARSED_PART;
    *body = parser->bytes + parser->start + HEADER_SIZE;
    parser->start += HEADER_SIZE + header->length;
    return PARSED_FRAME;
}
