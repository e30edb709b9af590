#include "messages.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>

void map_begin(struct map_walk *walk, const uint8_t *body, size_t length)
{
    *walk = (struct map_walk){.reader = {.at = body, .end = body + length}};
    mp_read_map(&walk->reader, &walk->pairs);
}

int map_next(struct map_walk *walk, const char *const names[], int count)
{
    while (!walk->reader.failed && walk->pairs > 0) {
        struct mp_text key;
        walk->pairs--;
        if (!mp_read_str(&walk->reader, &key))
            break;
        for (int i = 0; i < count; i++) {
            if (!mp_text_is(key, names[i]))
                continue;
            if (walk->seen & (uint32_t)1 << i)
                walk->reader.failed = true;
            walk->seen |= (uint32_t)1 << i;
            return walk->reader.failed ? -1 : i;
        }
        mp_skip(&walk->reader);
    }
    return -1;
}

bool map_complete(const struct map_walk *walk, uint32_t required)
{
    return mp_at_end(&walk->reader) && walk->pairs == 0 && (walk->seen & required) == required;
}

// Copies a string of `least` to `most` bytes without a NUL in it; `copy` has room for one more.
static bool read_string(struct mp_reader *reader, char *copy, size_t least, size_t most)
{
    struct mp_text text;
    if (!mp_read_str(reader, &text))
        return false;
    if (text.length < least || text.length > most || memchr(text.bytes, 0, text.length)) {
        reader->failed = true;
        return false;
    }
    memcpy(copy, text.bytes, text.length);
    copy[text.length] = '\0';
    return true;
}

static void read_entropy(struct mp_reader *reader, struct identity *identity)
{
    struct mp_text bytes;
    if (!mp_read_bin(reader, &bytes))
        return;
    if (bytes.length < ENTROPY_MIN || bytes.length > ENTROPY_MAX) {
        reader->failed = true;
        return;
    }
    memcpy(identity->entropy, bytes.bytes, bytes.length);
    identity->entropy_length = bytes.length;
}

// The text goes into files of one line each, so nothing but letters, digits, '-', '.' and '_' is let through.
static bool is_name(const char *text)
{
    for (; *text; text++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._", *text))
            return false;
    return true;
}

static bool is_hex(const char *text)
{
    return text[strspn(text, "0123456789abcdef")] == '\0';
}

// The keys that CONFIGURE and IDENTIFY have in common come first in both.
enum { KEY_TIME, KEY_ENTROPY, KEY_HOSTNAME, KEY_MACHINE_ID, IDENTITY_KEYS };
#define IDENTITY_NAMES "time_ns", "entropy", "hostname", "machine_id"

static void read_identity(struct mp_reader *reader, int key, struct identity *identity)
{
    switch (key) {
    case KEY_TIME:
        mp_read_int(reader, 0, INT64_MAX, &identity->time_ns);
        break;
    case KEY_ENTROPY:
        read_entropy(reader, identity);
        break;
    case KEY_HOSTNAME:
        if (read_string(reader, identity->hostname, 1, HOSTNAME_MAX) && !is_name(identity->hostname))
            reader->failed = true;
        break;
    default:
        if (read_string(reader, identity->machine_id, MACHINE_ID_LENGTH, MACHINE_ID_LENGTH) &&
            !is_hex(identity->machine_id))
            reader->failed = true;
    }
}

static void read_warm(struct mp_reader *reader, struct configure *configure)
{
    uint32_t count;
    if (!mp_read_array(reader, &count))
        return;
    if (count > WARM_MAX)
        reader->failed = true;
    for (uint32_t i = 0; i < count && !reader->failed; i++) {
        struct mp_text *pattern = &configure->warm[configure->warm_count++];
        if (mp_read_str(reader, pattern) && (pattern->length > WARM_PATTERN_MAX || pattern->length == 0 ||
                                             pattern->bytes[0] != '/' || memchr(pattern->bytes, 0, pattern->length)))
            reader->failed = true;
    }
}

// A root of two disks, or of one.
static bool names_a_root(const struct configure *configure)
{
    if (configure->disk[0])
        return !configure->base[0] && !configure->upper[0] && !configure->template;
    return configure->base[0] && configure->upper[0] && !configure->fstype[0];
}

bool decode_configure(const uint8_t *body, size_t length, struct configure *configure)
{
    enum { KEY_VERSION = IDENTITY_KEYS, KEY_BASE, KEY_UPPER, KEY_DISK, KEY_FSTYPE, KEY_TEMPLATE, KEY_WARM, KEYS };
    static const char *const names[KEYS] = {IDENTITY_NAMES, "version", "base",     "upper",
                                            "disk",         "fstype",  "template", "warm"};
    struct map_walk walk;
    *configure = (struct configure){0};
    map_begin(&walk, body, length);
    for (int key; (key = map_next(&walk, names, KEYS)) >= 0;) {
        struct mp_reader *reader = &walk.reader;
        switch (key) {
        case KEY_VERSION:
            mp_read_int(reader, 0, INT32_MAX, &configure->version);
            break;
        case KEY_BASE:
            read_string(reader, configure->base, 0, SERIAL_MAX);
            break;
        case KEY_UPPER:
            read_string(reader, configure->upper, 0, SERIAL_MAX);
            break;
        case KEY_DISK:
            read_string(reader, configure->disk, 0, SERIAL_MAX);
            break;
        case KEY_FSTYPE:
            read_string(reader, configure->fstype, 0, FSTYPE_MAX);
            break;
        case KEY_TEMPLATE:
            mp_read_bool(reader, &configure->template);
            break;
        case KEY_WARM:
            read_warm(reader, configure);
            break;
        default:
            read_identity(reader, key, &configure->identity);
        }
    }
    return map_complete(&walk, (1u << KEY_BASE) - 1) && names_a_root(configure) &&
           (configure->template || configure->warm_count == 0);
}

bool decode_identify(const uint8_t *body, size_t length, struct identity *identity)
{
    static const char *const names[IDENTITY_KEYS] = {IDENTITY_NAMES};
    struct map_walk walk;
    *identity = (struct identity){0};
    map_begin(&walk, body, length);
    for (int key; (key = map_next(&walk, names, IDENTITY_KEYS)) >= 0;)
        read_identity(&walk.reader, key, identity);
    return map_complete(&walk, (1u << IDENTITY_KEYS) - 1);
}

// A map whose one known key is an integer.
static bool decode_int(const uint8_t *body, size_t length, const char *name, int64_t low, int64_t high, int64_t *number)
{
    struct map_walk walk;
    map_begin(&walk, body, length);
    while (map_next(&walk, &name, 1) >= 0)
        mp_read_int(&walk.reader, low, high, number);
    return map_complete(&walk, 1);
}

bool decode_shutdown(const uint8_t *body, size_t length, int64_t *grace_ms, int64_t *signal)
{
    static const char *const names[] = {"grace_ms", "signal"};
    struct map_walk walk;
    *signal = SIGTERM;
    map_begin(&walk, body, length);
    for (int key; (key = map_next(&walk, names, 2)) >= 0;)
        key == 0 ? mp_read_int(&walk.reader, 0, INT32_MAX, grace_ms) : mp_read_int(&walk.reader, 1, 64, signal);
    return map_complete(&walk, 1);
}

bool decode_clock(const uint8_t *body, size_t length, int64_t *time_ns)
{
    return decode_int(body, length, "time_ns", 0, INT64_MAX, time_ns);
}

bool decode_signal(const uint8_t *body, size_t length, int64_t *signal)
{
    return decode_int(body, length, "signal", 1, 64, signal);
}

bool decode_deadline(const uint8_t *body, size_t length, int64_t *deadline_ms)
{
    return decode_int(body, length, "deadline_ms", 0, MILLISECONDS_MAX, deadline_ms);
}

bool decode_credit(const uint8_t *body, size_t length, uint32_t *credit)
{
    if (length != 4)
        return false;
    *credit = (uint32_t)body[0] | (uint32_t)body[1] << 8 | (uint32_t)body[2] << 16 | (uint32_t)body[3] << 24;
    return true;
}

bool read_terminal_size(struct mp_reader *reader, uint16_t *size)
{
    int64_t number;
    if (!mp_read_int(reader, 1, UINT16_MAX, &number))
        return false;
    *size = (uint16_t)number;
    return true;
}

bool read_window(struct mp_reader *reader, uint32_t *window)
{
    int64_t number;
    if (!mp_read_int(reader, 1, WINDOW, &number))
        return false;
    *window = (uint32_t)number;
    return true;
}

bool decode_resize(const uint8_t *body, size_t length, uint16_t *rows, uint16_t *cols)
{
    static const char *const names[] = {"rows", "cols"};
    struct map_walk walk;
    map_begin(&walk, body, length);
    for (int key; (key = map_next(&walk, names, 2)) >= 0;)
        read_terminal_size(&walk.reader, key == 0 ? rows : cols);
    return map_complete(&walk, 3);
}

static struct mp_writer writer_for(struct message *message)
{
    return (struct mp_writer){.at = message->bytes, .end = message->bytes + sizeof message->bytes};
}

static void finish(struct message *message, const struct mp_writer *writer)
{
    message->length = (size_t)(writer->at - message->bytes);
}

void write_pair_int(struct mp_writer *writer, const char *key, int64_t number)
{
    mp_write_str(writer, key);
    mp_write_int(writer, number);
}

static void write_pair_bool(struct mp_writer *writer, const char *key, bool truth)
{
    mp_write_str(writer, key);
    mp_write_bool(writer, truth);
}

void write_pair_text(struct mp_writer *writer, const char *key, const char *text)
{
    char copy[400];
    printable(text, copy, sizeof copy);
    mp_write_str(writer, key);
    mp_write_str(writer, copy);
}

struct message encode_hello(const char *agent, const char *kernel)
{
    struct message message;
    struct mp_writer writer = writer_for(&message);
    mp_write_map(&writer, 3);
    mp_write_str(&writer, "versions");
    mp_write_array(&writer, 1);
    mp_write_int(&writer, WIRE_VERSION);
    write_pair_text(&writer, "agent", agent);
    write_pair_text(&writer, "kernel", kernel);
    finish(&message, &writer);
    return message;
}

struct message encode_ready(const struct timing *timings, size_t count)
{
    struct message message;
    struct mp_writer writer = writer_for(&message);
    mp_write_map(&writer, 1);
    mp_write_str(&writer, "timings");
    mp_write_map(&writer, (uint32_t)count);
    for (size_t i = 0; i < count; i++)
        write_pair_int(&writer, timings[i].name, (int64_t)timings[i].microseconds);
    finish(&message, &writer);
    return message;
}

static struct message encode_fault(const char *name, const char *what, int error, const char *text)
{
    struct message message;
    struct mp_writer writer = writer_for(&message);
    mp_write_map(&writer, 3);
    write_pair_text(&writer, name, what);
    write_pair_int(&writer, "errno", error);
    write_pair_text(&writer, "message", text);
    finish(&message, &writer);
    return message;
}

struct message encode_boot_failed(const char *stage, int error, const char *text)
{
    return encode_fault("stage", stage, error, text);
}

struct message encode_failed(const char *kind, int error, const char *text)
{
    return encode_fault("kind", kind, error, text);
}

struct message encode_error(const char *code, const char *text)
{
    struct message message;
    struct mp_writer writer = writer_for(&message);
    mp_write_map(&writer, 2);
    write_pair_text(&writer, "code", code);
    write_pair_text(&writer, "message", text);
    finish(&message, &writer);
    return message;
}

static struct message encode_one_int(const char *key, int64_t number)
{
    struct message message;
    struct mp_writer writer = writer_for(&message);
    mp_write_map(&writer, 1);
    write_pair_int(&writer, key, number);
    finish(&message, &writer);
    return message;
}

struct message encode_started(int64_t pid)
{
    return encode_one_int("pid", pid);
}

struct message encode_stdin_closed(int error)
{
    return encode_one_int("errno", error);
}

static int64_t microseconds(struct timeval time)
{
    return (int64_t)time.tv_sec * 1000000 + time.tv_usec;
}

struct message encode_exited(int status, bool timed_out, bool held_open, const struct rusage *usage)
{
    struct message message;
    struct mp_writer writer = writer_for(&message);
    mp_write_map(&writer, 8);
    write_pair_int(&writer, "code", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    write_pair_int(&writer, "signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    write_pair_bool(&writer, "core", WIFSIGNALED(status) && WCOREDUMP(status));
    write_pair_bool(&writer, "timed_out", timed_out);
    write_pair_bool(&writer, "held_open", held_open);
    write_pair_int(&writer, "utime_us", microseconds(usage->ru_utime));
    write_pair_int(&writer, "stime_us", microseconds(usage->ru_stime));
    write_pair_int(&writer, "maxrss_kib", usage->ru_maxrss);
    finish(&message, &writer);
    return message;
}

struct message encode_credit(uint32_t credit)
{
    struct message message = {.length = 4};
    for (int i = 0; i < 4; i++)
        message.bytes[i] = (uint8_t)(credit >> 8 * i);
    return message;
}

void printable(const char *text, char *copy, size_t size)
{
    size_t length = 0;
    for (; text[length] && length < size - 1; length++)
        copy[length] = text[length] >= ' ' && text[length] <= '~' ? text[length] : '?';
    copy[length] = '\0';
}
