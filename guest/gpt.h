// The partition of a GUID partition table that says of itself that it is the root. The kernel tells sizes and places of
// partitions, but not their types.
#ifndef TRIO_SANDBOX_GPT_H
#define TRIO_SANDBOX_GPT_H

#include <stddef.h>
#include <stdint.h>

enum { GPT_SECTOR = 512 };

// The number of the first partition of the type "root of this architecture" (Discoverable Partitions Specification) in
// a table among the first `length` bytes of a disk; 0: there is none. The table is not verified: it is a hint, and the
// kernel has the last word on which partitions there are.
unsigned gpt_root_partition(const uint8_t *start, size_t length);

#endif
