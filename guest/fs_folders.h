// A stack of open folders, each in the one below it, as deep as one likes: only the nearest have a descriptor, and the
// way back to the others is `..`, which must lead where one came from.
#ifndef TRIO_SANDBOX_FS_FOLDERS_H
#define TRIO_SANDBOX_FS_FOLDERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fs_folder {
    int fd; // -1: too far away
    uint64_t dev, ino;
};

struct fs_folders {
    struct fs_folder *stack;
    size_t depth, room;
};

bool folders_push(struct fs_folders *folders, int fd); // takes the descriptor, also when it fails. False: errno
bool folders_pop(struct fs_folders *folders);          // false: errno; ESTALE when somebody moved a folder away
int folders_top(const struct fs_folders *folders);
int folders_below(const struct fs_folders *folders); // the folder that holds the top one

// An array that has room for `wanted` items of `size` bytes each: `items`, or where they are from now on. NULL: ENOMEM,
// also above the bound that one helper keeps; then the old one stays.
void *grow(void *items, size_t *room, size_t wanted, size_t size);

#endif
