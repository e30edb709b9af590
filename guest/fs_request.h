// What an FS message asks for, checked.
#ifndef TRIO_SANDBOX_FS_REQUEST_H
#define TRIO_SANDBOX_FS_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fs_op {
    FS_READ,
    FS_WRITE,
    FS_LIST,
    FS_STAT,
    FS_READLINK,
    FS_MKDIR,
    FS_REMOVE,
    FS_REMOVE_DIR,
    FS_COPY,
    FS_RENAME,
    FS_SYMLINK,
    FS_CHMOD,
    FS_CHOWN,
    FS_PACK,
    FS_UNPACK,
    FS_SYNC,
    FS_UNKNOWN, // an operation of a newer host
};

// One allocation: the strings lie behind the struct.
struct fs_request {
    enum fs_op op;
    const char *path; // absolute
    const char *to;   // absolute, but for FS_SYMLINK any text; "" where there is none
    const char *root; // "": none; else absolute, and the path stays within it
    const char *owner;
    const char *user; // "" is root
    int64_t mode;     // -1 = none
    int64_t offset;
    int64_t length; // -1 = all
    bool atomic, fsync, follow, recursive, replace, append;
    int64_t deadline_ms;          // 0 = none
    int64_t window, stdin_window; // 1 to WINDOW
};

// NULL when the message is not an FS map or asks for the impossible: *problem then says what is wrong, or is NULL when
// memory is short. The caller frees the request with free().
struct fs_request *fs_request_decode(const uint8_t *body, size_t length, const char **problem);

// Whether the operation reads its standard input.
bool fs_request_reads(const struct fs_request *request);

#endif
