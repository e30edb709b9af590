#include "gpt.h"

#include <string.h>

// As they are on the disk: the first three groups of a GUID are little-endian.
#if defined(__x86_64__) // 4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709
static const uint8_t root_type[16] = {0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8, 0xb1, 0x4d,
                                      0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09};
#elif defined(__aarch64__) // B921B045-1DF0-41C3-AF44-4C6F280D3FAE
static const uint8_t root_type[16] = {0x45, 0xb0, 0x21, 0xb9, 0xf0, 0x1d, 0xc3, 0x41,
                                      0xaf, 0x44, 0x4c, 0x6f, 0x28, 0x0d, 0x3f, 0xae};
#else
#error "which type of partition is the root of this architecture?"
#endif

static uint64_t read_number(const uint8_t *at, int bytes)
{
    uint64_t number = 0;
    for (int i = 0; i < bytes; i++)
        number |= (uint64_t)at[i] << 8 * i;
    return number;
}

unsigned gpt_root_partition(const uint8_t *start, size_t length)
{
    enum { ENTRIES_AT = 72, COUNT_AT = 80, SIZE_AT = 84, HEADER_SIZE_MIN = 92, ENTRY_SIZE_MIN = 128, COUNT_MAX = 128 };
    if (length < GPT_SECTOR + HEADER_SIZE_MIN || memcmp(start + GPT_SECTOR, "EFI PART", 8) != 0)
        return 0;
    const uint8_t *header = start + GPT_SECTOR;
    uint64_t sector = read_number(header + ENTRIES_AT, 8);
    uint64_t count = read_number(header + COUNT_AT, 4), size = read_number(header + SIZE_AT, 4);
    if (sector < 2 || sector > length / GPT_SECTOR || size < ENTRY_SIZE_MIN || size > length)
        return 0;
    uint64_t at = sector * GPT_SECTOR;
    for (unsigned number = 1; number <= count && number <= COUNT_MAX && at + size <= length; number++, at += size)
        if (memcmp(start + at, root_type, sizeof root_type) == 0)
            return number;
    return 0;
}
