// A path taken apart: the folder, held open, and the name in it. What is done with the two cannot be led elsewhere by
// who replaces a folder of the path meanwhile.
#ifndef TRIO_SANDBOX_FS_TARGET_H
#define TRIO_SANDBOX_FS_TARGET_H

#include <stdbool.h>
#include <stdint.h>

#include "fs_result.h"

struct fs_target {
    int folder;                 // O_PATH
    char name[FS_NAME_MAX + 1]; // "." where the path has no name at its end
};

// The folder must be there, the name need not. With `follow`, where symbolic links that stand at the name lead to, also
// when nothing is there. False: errno.
bool target_open(struct fs_target *target, const char *path, bool follow);

// Cuts `path` in two at its last name, in place. Slashes at its end are dropped; the name is "." where the path has
// none or ends with "." or "..". False: the name is too long (errno).
bool path_cut(char *path, const char **folder, const char **name);

// openat2(2), with O_CLOEXEC. -1: errno.
int open_by(int folder, const char *path, int flags, uint64_t resolve);

// As the kernel's RESOLVE_NO_XDEV; and RESOLVE_BENEATH with RESOLVE_NO_SYMLINKS.
enum { FS_SAME_MOUNT = 1, FS_BENEATH = 0x0c };

// Opens a folder for reading by its name in another, never through a symbolic link at the end of the name. With
// FS_SAME_MOUNT a folder on which something is mounted is EXDEV. With FS_BENEATH the name may be a path, on which no
// link is followed and nothing leads out. -1: errno.
int open_folder(int folder, const char *name, unsigned flags);

#endif
