// The msgpack bodies of docs/wire.md, except EXEC, which has a file of its own.
#ifndef TRIO_SANDBOX_MESSAGES_H
#define TRIO_SANDBOX_MESSAGES_H

#include <stdbool.h>
#include <sys/resource.h>

#include "msgpack.h"
#include "wire.h"

// The longest time that can be asked for: in nanoseconds it still is a number.
#define MILLISECONDS_MAX (INT64_MAX / 1000000)

// Walks the pairs of a map. Unknown keys are skipped, a key that comes twice is an error.
struct map_walk {
    struct mp_reader reader;
    uint32_t pairs; // still to come
    uint32_t seen;  // bit n: names[n] was there
};

void map_begin(struct map_walk *walk, const uint8_t *body, size_t length);
int map_next(struct map_walk *walk, const char *const names[], int count); // index of the key in names, -1 at the end
bool map_complete(const struct map_walk *walk, uint32_t required);         // well-formed, with these keys at least

// What every machine must be told that is like no other: of CONFIGURE, and all of IDENTIFY.
struct identity {
    int64_t time_ns;
    uint8_t entropy[ENTROPY_MAX];
    size_t entropy_length;
    char hostname[HOSTNAME_MAX + 1];
    char machine_id[MACHINE_ID_LENGTH + 1];
};

struct configure {
    int64_t version;
    struct identity identity;
    char base[SERIAL_MAX + 1]; // base and upper, or else disk
    char upper[SERIAL_MAX + 1];
    char disk[SERIAL_MAX + 1];
    char fstype[FSTYPE_MAX + 1];
    bool template;
    struct mp_text warm[WARM_MAX]; // absolute patterns, in the body that was decoded
    size_t warm_count;
};

bool decode_configure(const uint8_t *body, size_t length, struct configure *configure);
bool decode_identify(const uint8_t *body, size_t length, struct identity *identity);
bool decode_shutdown(const uint8_t *body, size_t length, int64_t *grace_ms, int64_t *signal);
bool decode_clock(const uint8_t *body, size_t length, int64_t *time_ns);
bool decode_signal(const uint8_t *body, size_t length, int64_t *signal);
bool decode_deadline(const uint8_t *body, size_t length, int64_t *deadline_ms);
bool decode_credit(const uint8_t *body, size_t length, uint32_t *credit);

bool decode_resize(const uint8_t *body, size_t length, uint16_t *rows, uint16_t *cols);

// Values that several messages have: rows or columns of a terminal; the initial credit of one direction.
bool read_terminal_size(struct mp_reader *reader, uint16_t *size);
bool read_window(struct mp_reader *reader, uint32_t *window);

struct message {
    uint8_t bytes[1024];
    size_t length;
};

struct timing {
    const char *name;
    uint64_t microseconds;
};

struct message encode_hello(const char *agent, const char *kernel);
struct message encode_ready(const struct timing *timings, size_t count);
struct message encode_boot_failed(const char *stage, int error, const char *text);
struct message encode_error(const char *code, const char *text);
struct message encode_started(int64_t pid);
struct message encode_failed(const char *kind, int error, const char *text);
struct message encode_exited(int status, bool timed_out, bool held_open, const struct rusage *usage);
struct message encode_credit(uint32_t credit);
struct message encode_stdin_closed(int error);

// One pair of a map that is being written. Text is made printable() and cut at 399 bytes.
void write_pair_int(struct mp_writer *writer, const char *key, int64_t number);
void write_pair_text(struct mp_writer *writer, const char *key, const char *text);

// Copies `text` so that it is surely UTF-8 and short: other bytes than printable ASCII become '?'.
void printable(const char *text, char *copy, size_t size);

#endif
