#include "superblock.h"

#include <string.h>

#define MAGIC(text) text, sizeof text - 1

// The long signatures first: two bytes may be there by chance.
static const struct {
    const char *name;
    size_t offset;
    const char *magic;
    size_t length;
} known[] = {
    {"LUKS", 0, MAGIC("LUKS\xba\xbe")},
    {"LVM2", 0x218, MAGIC("LVM2 001")},
    {"btrfs", 0x10040, MAGIC("_BHRfS_M")},
    {"xfs", 0, MAGIC("XFSB")},
    {"swap", 4096 - 10, MAGIC("SWAPSPACE2")},
    {"iso9660", 0x8001, MAGIC("CD001")},
    {"exfat", 3, MAGIC("EXFAT   ")},
    {"ntfs", 3, MAGIC("NTFS    ")},
    {"vfat", 0x52, MAGIC("FAT32   ")},
    {"vfat", 0x36, MAGIC("FAT16   ")},
    {"vfat", 0x36, MAGIC("FAT12   ")},
    {"squashfs", 0, MAGIC("hsqs")},
    {"erofs", 0x400, MAGIC("\xe2\xe1\xf5\xe0")},
    {"f2fs", 0x400, MAGIC("\x10\x20\xf5\xf2")},
};

static uint32_t read_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static bool is_ext(const uint8_t *start, size_t length)
{
    enum { SUPERBLOCK = 0x400, SIZE = 0x400, INODES = 0, BLOCKS = 4, BLOCK_SIZE_LOG = 0x18, MAGIC_AT = 0x38 };
    if (length < SUPERBLOCK + SIZE)
        return false;
    const uint8_t *block = start + SUPERBLOCK;
    return block[MAGIC_AT] == 0x53 && block[MAGIC_AT + 1] == 0xef && read_u32(block + BLOCK_SIZE_LOG) <= 6 &&
           read_u32(block + INODES) != 0 && read_u32(block + BLOCKS) != 0;
}

const char *superblock_name(const uint8_t *start, size_t length)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].offset + known[i].length <= length &&
            memcmp(start + known[i].offset, known[i].magic, known[i].length) == 0)
            return known[i].name;
    return is_ext(start, length) ? "ext4" : NULL;
}

bool superblock_can_be_root(const char *name)
{
    return strcmp(name, "ext4") == 0 || strcmp(name, "xfs") == 0 || strcmp(name, "btrfs") == 0;
}
