// Copies one thing that is no folder.
#ifndef TRIO_SANDBOX_FS_COPY_FILE_H
#define TRIO_SANDBOX_FS_COPY_FILE_H

#include "fs_status.h"

// Where a thing is, by its name in an open folder.
struct fs_at {
    int folder;
    const char *name;
};

// Copies what `status` tells of, with mode, times, holes, and the owner where that is allowed. Whatever is at the
// target is replaced, folders excepted. Symbolic links, FIFOs, sockets and devices are made anew. False: errno, and
// *at_target whether the error is about the target.
bool copy_file(struct fs_at from, const struct file_status *status, struct fs_at to, bool *at_target);

// Gives an open file or folder the owner, mode and times of another. False: errno.
bool copy_attributes(int fd, const struct file_status *status);

#endif
