// The frame codec: header to and from bytes, and a parser that is fed in pieces. No I/O.
#ifndef TRIO_SANDBOX_FRAMES_H
#define TRIO_SANDBOX_FRAMES_H

#include <stdbool.h>

#include "wire.h"

enum direction { TO_GUEST = 1, TO_HOST = 2 };

enum frame_fault {
    FRAME_OK,
    FRAME_BAD_LENGTH,
    FRAME_BAD_RESERVED,
    FRAME_BAD_TYPE,
    FRAME_BAD_DIRECTION,
    FRAME_BAD_FLAGS,
    FRAME_BAD_SESSION,
};

void header_encode(const struct header *header, uint8_t bytes[HEADER_SIZE]);

// Decodes and judges a header that travelled in `direction`.
enum frame_fault header_decode(const uint8_t bytes[HEADER_SIZE], enum direction direction, struct header *header);

// The `code` of an ERROR frame, such as "bad_length".
const char *frame_fault_code(enum frame_fault fault);

// Two frames of the largest size, so that one read can complete a frame and begin the next.
struct parser {
    enum direction direction;
    size_t start, end; // what is unparsed is bytes[start..end)
    uint8_t bytes[2 * (HEADER_SIZE + BODY_MAX)];
};

// Where the next bytes go, and how many fit: never 0 once parser_next asked for more.
uint8_t *parser_space(struct parser *parser, size_t *room);
void parser_filled(struct parser *parser, size_t count);

// Nothing of a further frame has come yet.
bool parser_is_empty(const struct parser *parser);

enum parsed { PARSED_FRAME, PARSED_PART, PARSED_FAULT };

// The next whole frame. *body stays valid until the next call of any parser function. After a fault the stream has no
// frame boundary any more: *header is what was read and *fault says what is wrong with it.
enum parsed parser_next(struct parser *parser, struct header *header, const uint8_t **body, enum frame_fault *fault);

#endif
