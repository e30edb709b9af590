#include "fs_entries.h"

#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

// From the kernel's linux/dirent.h. Records are aligned to 8 bytes.
struct kernel_entry {
    uint64_t ino;
    int64_t offset;
    uint16_t length; // of the record
    uint8_t type;
    char name[];
};

void entries_begin(struct fs_entries *entries, int folder)
{
    entries->folder = folder;
    entries->at = entries->end = 0;
}

int entries_next(struct fs_entries *entries, const char **name, unsigned char *type)
{
    for (;;) {
        if (entries->at == entries->end) {
            long count = syscall(SYS_getdents64, entries->folder, entries->bytes, sizeof entries->bytes);
            if (count <= 0)
                return (int)count;
            entries->at = 0;
            entries->end = (size_t)count;
        }
        const struct kernel_entry *entry = (const void *)(entries->bytes + entries->at);
        entries->at += entry->length;
        if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
            continue;
        *name = entry->name;
        *type = entry->type;
        return 1;
    }
}
