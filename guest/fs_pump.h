// Moves bytes between descriptors, without copying them where the kernel can. Blocks.
#ifndef TRIO_SANDBOX_FS_PUMP_H
#define TRIO_SANDBOX_FS_PUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Moves bytes, one end being a pipe, until `most` are moved (-1: without a limit) or `from` ends; adds to *moved what
// was moved. False: errno.
bool fs_pump(int from, int to, int64_t most, int64_t *moved);

// Makes a pipe hold more, so that its two ends run longer between their turns. It need not succeed.
void fs_widen(int pipe);

bool fs_write_all(int fd, const void *bytes, size_t count); // false: errno

#endif
