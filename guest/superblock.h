// What a disk or a partition holds, by its first bytes. They come from anyone and are only looked at.
#ifndef TRIO_SANDBOX_SUPERBLOCK_H
#define TRIO_SANDBOX_SUPERBLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SUPERBLOCK_REACH = 68 * 1024 }; // bytes from the start in which everything is that is looked for

// The kernel's name of the file system (ext4 for ext2 and ext3 too), or what else it is: "swap", "LVM2", … NULL:
// nothing that is known. `length` may be anything.
const char *superblock_name(const uint8_t *start, size_t length);

// Whether the root of a sandbox can be on it.
bool superblock_can_be_root(const char *name);

#endif
