// msgpack in place: a bounds-checked reader and writer, without allocation and without recursion.
//
// A reader or writer that failed once stays failed, so a caller may check at the end. Values point into the bytes that
// were read.
#ifndef TRIO_SANDBOX_MSGPACK_H
#define TRIO_SANDBOX_MSGPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mp_reader {
    const uint8_t *at, *end;
    bool failed;
};

enum mp_type { MP_NIL, MP_BOOL, MP_INT, MP_HUGE, MP_FLOAT, MP_STR, MP_BIN, MP_EXT, MP_ARRAY, MP_MAP };

struct mp_value {
    enum mp_type type;    // MP_HUGE: an integer above INT64_MAX
    int64_t number;       // of MP_INT and MP_BOOL
    const uint8_t *bytes; // of MP_STR, MP_BIN, MP_EXT, MP_FLOAT: not terminated
    uint32_t count;       // bytes, items of an array, or pairs of a map
};

struct mp_text {
    const char *bytes; // not terminated
    size_t length;
};

bool mp_read(struct mp_reader *reader, struct mp_value *value);
bool mp_skip(struct mp_reader *reader); // one value with all that is in it

// Each of these fails when the next value is of another type.
bool mp_read_map(struct mp_reader *reader, uint32_t *pairs);
bool mp_read_array(struct mp_reader *reader, uint32_t *items);
bool mp_read_int(struct mp_reader *reader, int64_t low, int64_t high, int64_t *number);
bool mp_read_bool(struct mp_reader *reader, bool *truth);
bool mp_read_str(struct mp_reader *reader, struct mp_text *text);
bool mp_read_bin(struct mp_reader *reader, struct mp_text *bytes);
bool mp_read_str_or_bin(struct mp_reader *reader, struct mp_text *bytes);

bool mp_text_is(struct mp_text text, const char *literal);
bool mp_at_end(const struct mp_reader *reader); // all read, and nothing failed

struct mp_writer {
    uint8_t *at, *end;
    bool failed;
};

// Every value is written in its shortest form, as Python's msgpack does.
void mp_write_map(struct mp_writer *writer, uint32_t pairs);
void mp_write_array(struct mp_writer *writer, uint32_t items);
void mp_write_int(struct mp_writer *writer, int64_t number);
void mp_write_nil(struct mp_writer *writer);
void mp_write_bool(struct mp_writer *writer, bool truth);
void mp_write_str(struct mp_writer *writer, const char *text);
void mp_write_bytes(struct mp_writer *writer, enum mp_type type, const void *bytes, size_t count); // MP_STR or MP_BIN

#endif
