// The body of DONE: how FS, EMIT and SUBSCRIBE end.
#ifndef TRIO_SANDBOX_DONE_H
#define TRIO_SANDBOX_DONE_H

#include "msgpack.h"
#include "wire.h"

// statx(2) of one file, in the order of the wire. `mode` with the type bits; times in nanoseconds since the epoch.
struct file_status {
    int64_t mode, size, uid, gid, nlink, ino, dev, rdev, atime_ns, mtime_ns, ctime_ns, birth_ns;
};

enum { FILE_STATUS_KEYS = 12 };

// All that is zero here is left at its "nothing": errno 0, empty, nil.
struct done {
    int error;           // errno; 0: done
    const char *message; // a sentence about the error; what is not printable ASCII becomes '?', what is over 400 is cut
    struct mp_text path; // of the file that the error is about; at most PATH_BYTES_MAX bytes are sent
    int64_t count;
    struct mp_text target; // likewise
    const struct file_status *status;
};

enum { DONE_MAX = 2 * PATH_BYTES_MAX + 1024 };

// Writes the map; returns its length.
size_t encode_done(const struct done *done, uint8_t body[DONE_MAX]);

// The FILE_STATUS_KEYS pairs of a status, into a map that was begun: of DONE's `status`, and of each entry of `list`.
void write_file_status(struct mp_writer *writer, const struct file_status *status);

#endif
