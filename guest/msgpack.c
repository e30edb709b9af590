#include "msgpack.h"

#include <string.h>

static bool fail(struct mp_reader *reader)
{
    reader->failed = true;
    return false;
}

static size_t left(const struct mp_reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

static bool read_big_endian(struct mp_reader *reader, size_t size, uint64_t *number)
{
    if (left(reader) < size)
        return fail(reader);
    *number = 0;
    while (size--)
        *number = *number << 8 | *reader->at++;
    return true;
}

static bool take_bytes(struct mp_reader *reader, enum mp_type type, uint64_t count, struct mp_value *value)
{
    if (count > left(reader))
        return fail(reader);
    *value = (struct mp_value){.type = type, .bytes = reader->at, .count = (uint32_t)count};
    reader->at += count;
    return true;
}

static bool take_container(struct mp_reader *reader, enum mp_type type, uint64_t count, struct mp_value *value)
{
    // Every item takes at least a byte, so a count that cannot be true is refused before anybody loops over it.
    if (count > left(reader) / (type == MP_MAP ? 2 : 1))
        return fail(reader);
    *value = (struct mp_value){.type = type, .count = (uint32_t)count};
    return true;
}

static bool take_unsigned(struct mp_reader *reader, size_t size, struct mp_value *value)
{
    uint64_t number;
    if (!read_big_endian(reader, size, &number))
        return false;
    *value = number > INT64_MAX ? (struct mp_value){.type = MP_HUGE}
                                : (struct mp_value){.type = MP_INT, .number = (int64_t)number};
    return true;
}

static bool take_signed(struct mp_reader *reader, size_t size, struct mp_value *value)
{
    uint64_t number;
    if (!read_big_endian(reader, size, &number))
        return false;
    if (size < 8 && number >> (8 * size - 1)) // sign bit: fill what is above it
        number |= ~(uint64_t)0 << 8 * size;
    *value = (struct mp_value){.type = MP_INT, .number = (int64_t)number};
    return true;
}

// A body whose length, of `size` bytes, stands before it, with `extra` bytes between (the type of an ext).
static bool take_sized(struct mp_reader *reader, enum mp_type type, size_t size, uint64_t extra, struct mp_value *value)
{
    uint64_t count;
    return read_big_endian(reader, size, &count) && take_bytes(reader, type, count + extra, value);
}

static bool take_counted(struct mp_reader *reader, enum mp_type type, size_t size, struct mp_value *value)
{
    uint64_t count;
    return read_big_endian(reader, size, &count) && take_container(reader, type, count, value);
}

bool mp_read(struct mp_reader *reader, struct mp_value *value)
{
    *value = (struct mp_value){.type = MP_NIL};
    if (reader->failed || left(reader) == 0)
        return fail(reader);
    uint8_t first = *reader->at++;
    if (first < 0x80 || first >= 0xe0) {
        *value = (struct mp_value){.type = MP_INT, .number = (int8_t)first};
        return true;
    }
    if (first < 0x90)
        return take_container(reader, MP_MAP, first & 0x0f, value);
    if (first < 0xa0)
        return take_container(reader, MP_ARRAY, first & 0x0f, value);
    if (first < 0xc0)
        return take_bytes(reader, MP_STR, first & 0x1f, value);
    switch (first) {
    case 0xc0:
        return true;
    case 0xc2:
    case 0xc3:
        *value = (struct mp_value){.type = MP_BOOL, .number = first & 1};
        return true;
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return take_sized(reader, MP_BIN, (size_t)1 << (first - 0xc4), 0, value);
    case 0xc7:
    case 0xc8:
    case 0xc9:
        return take_sized(reader, MP_EXT, (size_t)1 << (first - 0xc7), 1, value);
    case 0xca:
        return take_bytes(reader, MP_FLOAT, 4, value);
    case 0xcb:
        return take_bytes(reader, MP_FLOAT, 8, value);
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        return take_unsigned(reader, (size_t)1 << (first - 0xcc), value);
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        return take_signed(reader, (size_t)1 << (first - 0xd0), value);
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        return take_bytes(reader, MP_EXT, ((uint64_t)1 << (first - 0xd4)) + 1, value);
    case 0xd9:
    case 0xda:
    case 0xdb:
        return take_sized(reader, MP_STR, (size_t)1 << (first - 0xd9), 0, value);
    case 0xdc:
    case 0xdd:
        return take_counted(reader, MP_ARRAY, (size_t)2 << (first - 0xdc), value);
    case 0xde:
    case 0xdf:
        return take_counted(reader, MP_MAP, (size_t)2 << (first - 0xde), value);
    default: // 0xc1 means nothing
        return fail(reader);
    }
}

bool mp_skip(struct mp_reader *reader)
{
    // A count of what is still to come replaces recursion: depth costs nothing, and each value takes a byte.
    struct mp_value value;
    for (uint64_t pending = 1; pending; pending--) {
        if (!mp_read(reader, &value))
            return false;
        if (value.type == MP_ARRAY)
            pending += value.count;
        else if (value.type == MP_MAP)
            pending += 2 * (uint64_t)value.count;
    }
    return true;
}

static bool read_type(struct mp_reader *reader, enum mp_type type, struct mp_value *value)
{
    return mp_read(reader, value) && (value->type == type || fail(reader));
}

bool mp_read_map(struct mp_reader *reader, uint32_t *pairs)
{
    struct mp_value value;
    bool found = read_type(reader, MP_MAP, &value);
    *pairs = found ? value.count : 0;
    return found;
}

bool mp_read_array(struct mp_reader *reader, uint32_t *items)
{
    struct mp_value value;
    bool found = read_type(reader, MP_ARRAY, &value);
    *items = found ? value.count : 0;
    return found;
}

bool mp_read_int(struct mp_reader *reader, int64_t low, int64_t high, int64_t *number)
{
    struct mp_value value;
    if (!read_type(reader, MP_INT, &value) || value.number < low || value.number > high)
        return fail(reader);
    *number = value.number;
    return true;
}

bool mp_read_bool(struct mp_reader *reader, bool *truth)
{
    struct mp_value value;
    if (!read_type(reader, MP_BOOL, &value))
        return false;
    *truth = value.number != 0;
    return true;
}

static bool read_text(struct mp_reader *reader, bool str, bool bin, struct mp_text *text)
{
    struct mp_value value;
    if (!mp_read(reader, &value))
        return false;
    if (!(str && value.type == MP_STR) && !(bin && value.type == MP_BIN))
        return fail(reader);
    *text = (struct mp_text){(const char *)value.bytes, value.count};
    return true;
}

bool mp_read_str(struct mp_reader *reader, struct mp_text *text)
{
    return read_text(reader, true, false, text);
}

bool mp_read_bin(struct mp_reader *reader, struct mp_text *bytes)
{
    return read_text(reader, false, true, bytes);
}

bool mp_read_str_or_bin(struct mp_reader *reader, struct mp_text *bytes)
{
    return read_text(reader, true, true, bytes);
}

bool mp_text_is(struct mp_text text, const char *literal)
{
    return text.length == strlen(literal) && memcmp(text.bytes, literal, text.length) == 0;
}

bool mp_at_end(const struct mp_reader *reader)
{
    return !reader->failed && reader->at == reader->end;
}

static void put(struct mp_writer *writer, const void *bytes, size_t count)
{
    if (writer->failed || (size_t)(writer->end - writer->at) < count) {
        writer->failed = true;
        return;
    }
    if (count)
        memcpy(writer->at, bytes, count);
    writer->at += count;
}

static void put_tagged(struct mp_writer *writer, unsigned tag, uint64_t number, size_t size)
{
    uint8_t bytes[9] = {(uint8_t)tag};
    for (size_t i = 0; i < size; i++)
        bytes[1 + i] = (uint8_t)(number >> 8 * (size - 1 - i));
    put(writer, bytes, 1 + size);
}

// Writes `number` after one of the tags `tag`, `tag` + 1, `tag` + 2, `tag` + 3, for 1, 2, 4 and 8 bytes.
static void put_sized(struct mp_writer *writer, unsigned tag, uint64_t number)
{
    unsigned step = number <= UINT8_MAX ? 0 : number <= UINT16_MAX ? 1 : number <= UINT32_MAX ? 2 : 3;
    put_tagged(writer, tag + step, number, (size_t)1 << step);
}

static void put_count(struct mp_writer *writer, unsigned short_tag, unsigned long_tag, uint32_t count)
{
    if (count < 16)
        put_tagged(writer, short_tag | count, 0, 0);
    else if (count <= UINT16_MAX)
        put_tagged(writer, long_tag, count, 2);
    else
        put_tagged(writer, long_tag + 1, count, 4);
}

void mp_write_map(struct mp_writer *writer, uint32_t pairs)
{
    put_count(writer, 0x80, 0xde, pairs);
}

void mp_write_array(struct mp_writer *writer, uint32_t items)
{
    put_count(writer, 0x90, 0xdc, items);
}

void mp_write_int(struct mp_writer *writer, int64_t number)
{
    if (number >= -32 && number < 128)
        put_tagged(writer, (uint8_t)number, 0, 0);
    else if (number >= 0)
        put_sized(writer, 0xcc, (uint64_t)number);
    else if (number >= INT8_MIN)
        put_tagged(writer, 0xd0, (uint64_t)number, 1);
    else if (number >= INT16_MIN)
        put_tagged(writer, 0xd1, (uint64_t)number, 2);
    else if (number >= INT32_MIN)
        put_tagged(writer, 0xd2, (uint64_t)number, 4);
    else
        put_tagged(writer, 0xd3, (uint64_t)number, 8);
}

void mp_write_nil(struct mp_writer *writer)
{
    put_tagged(writer, 0xc0, 0, 0);
}

void mp_write_bool(struct mp_writer *writer, bool truth)
{
    put_tagged(writer, truth ? 0xc3 : 0xc2, 0, 0);
}

void mp_write_str(struct mp_writer *writer, const char *text)
{
    mp_write_bytes(writer, MP_STR, text, strlen(text));
}

void mp_write_bytes(struct mp_writer *writer, enum mp_type type, const void *bytes, size_t count)
{
    if (count > UINT32_MAX)
        writer->failed = true;
    else if (type == MP_STR && count < 32)
        put_tagged(writer, 0xa0 | (unsigned)count, 0, 0);
    else
        put_sized(writer, type == MP_STR ? 0xd9 : 0xc4, count);
    put(writer, bytes, count);
}
