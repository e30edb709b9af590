// What a helper process tells the agent at its end, through a pipe.
#ifndef TRIO_SANDBOX_FS_RESULT_H
#define TRIO_SANDBOX_FS_RESULT_H

#include <stdbool.h>

#include "done.h"

enum { FS_NAME_MAX = 255 }; // bytes of one name in a folder

// No bool in it: what comes from another process may be any bytes, and not every byte is one.
struct fs_result {
    int error;   // errno; 0: done
    int no_user; // nothing was tried: `user` is not known, or the helper may not become it
    int has_status;
    int64_t count;
    struct file_status status;
    char message[128];
    char path[PATH_BYTES_MAX + 1]; // terminated, as the others
    char target[PATH_BYTES_MAX + 1];
};

// Both return false, for the caller to return too. The first error stays. `path` is cut where it is too long.
bool fs_fail(struct fs_result *result, int error, const char *path);
bool fs_fail_saying(struct fs_result *result, int error, const char *path, const char *message);

#endif
