// One record of pack and unpack: what a file is, without its bytes.
#ifndef TRIO_SANDBOX_FS_RECORD_H
#define TRIO_SANDBOX_FS_RECORD_H

#include "msgpack.h"
#include "wire.h"

enum { RECORD_MAX = 2 * PATH_BYTES_MAX + 256 }; // bytes of one

struct fs_record {
    char name[PATH_BYTES_MAX + 1]; // relative, "" for the root
    char target[PATH_BYTES_MAX + 1];
    int64_t mode, mtime_ns, size;
};

void record_write(struct mp_writer *writer, const struct fs_record *record);

enum record_found { RECORD_PART, RECORD_WHOLE, RECORD_WRONG };

// Reads the record at the beginning of some bytes and tells how long it is. RECORD_PART: more bytes may make one of
// them. What is RECORD_WHOLE is one that `pack` could have written: its name stays inside, and all fits its type.
enum record_found record_read(const uint8_t *bytes, size_t count, struct fs_record *record, size_t *length);

#endif
