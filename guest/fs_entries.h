// The names in a folder, as the kernel hands them out.
#ifndef TRIO_SANDBOX_FS_ENTRIES_H
#define TRIO_SANDBOX_FS_ENTRIES_H

#include <stdalign.h>
#include <stddef.h>

struct fs_entries {
    int folder; // not owned
    size_t at, end;
    alignas(8) char bytes[32 * 1024];
};

void entries_begin(struct fs_entries *entries, int folder);

// 1: *name, which holds until the next call, and *type, one of DT_…; 0: there are no more; -1: errno. `.` and `..` are
// left out.
int entries_next(struct fs_entries *entries, const char **name, unsigned char *type);

#endif
