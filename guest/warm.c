#include "warm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "wire.h"

enum {
    MATCHES_MAX = 4096,    // of all patterns together
    ENTRIES_MAX = 1 << 16, // of folders that patterns are compared with
    BYTES_MAX = 96 << 20,
    PIECE = 128 << 10, // of a read: the largest block of a squashfs is a multiple of it
    PATH_SIZE = 4096,
};

// From the kernel's linux/openat2.h, which not every libc brings.
struct open_how {
    uint64_t flags, mode, resolve;
};
#define NO_OTHER_MOUNT 0x01
#define NO_MAGIC_LINKS 0x02
#define IN_ROOT 0x10
#ifndef SYS_openat2
#define SYS_openat2 437
#endif

static const char *const program_folders[] = {"/usr/local/sbin", "/usr/local/bin", "/usr/sbin",
                                              "/usr/bin",        "/sbin",          "/bin"};

struct walk {
    int root;
    struct warm_result done;
    size_t budget; // bytes that may still be read
    unsigned matches, entries;
    char path[PATH_SIZE]; // from the root, of what is looked at
    struct {
        dev_t device;
        ino_t inode;
    } seen[MATCHES_MAX]; // files that were read
};

static int open_inside(const struct walk *walk, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY),
                           .resolve = NO_OTHER_MOUNT | NO_MAGIC_LINKS | IN_ROOT};
    if (flags & O_PATH)
        how.flags &= ~(uint64_t)(O_NONBLOCK | O_NOCTTY);
    return (int)syscall(SYS_openat2, walk->root, path, &how, sizeof how);
}

static bool is_new(struct walk *walk, const struct stat *status)
{
    for (size_t i = 0; i < walk->done.files; i++)
        if (walk->seen[i].inode == status->st_ino && walk->seen[i].device == status->st_dev)
            return false;
    return true;
}

static void read_whole(struct walk *walk, int fd)
{
    static char piece[PIECE];
    while (walk->budget > 0) {
        ssize_t count = read(fd, piece, walk->budget < sizeof piece ? walk->budget : sizeof piece);
        if (count <= 0)
            return;
        walk->budget -= (size_t)count;
        walk->done.bytes += (size_t)count;
    }
}

static void read_match(struct walk *walk)
{
    struct stat status;
    if (walk->matches >= MATCHES_MAX || walk->budget == 0)
        return;
    walk->matches++;
    // Looked at before it is opened: opening a device or a FIFO does something.
    int fd = open_inside(walk, walk->path, O_PATH);
    if (fd < 0)
        return;
    bool wanted = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && is_new(walk, &status);
    close(fd);
    if (!wanted || (fd = open_inside(walk, walk->path, O_RDONLY)) < 0)
        return;
    walk->seen[walk->done.files].device = status.st_dev;
    walk->seen[walk->done.files++].inode = status.st_ino;
    read_whole(walk, fd);
    close(fd);
}

static bool append(struct walk *walk, size_t *length, const char *name, size_t size)
{
    if (*length + 1 + size >= sizeof walk->path)
        return false;
    walk->path[(*length)++] = '/';
    memcpy(walk->path + *length, name, size);
    *length += size;
    walk->path[*length] = '\0';
    return true;
}

static void expand(struct walk *walk, size_t length, const char *pattern);

// Goes on with every entry of the folder at walk->path that fits the first part of the pattern.
static void expand_folder(struct walk *walk, size_t length, const char *part, const char *rest)
{
    int fd = open_inside(walk, length ? walk->path : "/", O_RDONLY | O_DIRECTORY);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (!folder) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *entry; walk->entries < ENTRIES_MAX && (entry = readdir(folder));) {
        size_t longer = length;
        walk->entries++;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            fnmatch(part, entry->d_name, FNM_PERIOD) == 0 &&
            append(walk, &longer, entry->d_name, strlen(entry->d_name)))
            expand(walk, longer, rest);
    }
    closedir(folder);
}

// walk->path holds `length` bytes that are settled, and `pattern` is what follows them. It calls itself once for each
// part with a wildcard, of which WARM_PATTERN_MAX bytes hold at most half as many.
static void expand(struct walk *walk, size_t length, const char *pattern)
{
    for (;;) {
        char part[WARM_PATTERN_MAX + 1];
        pattern += strspn(pattern, "/");
        size_t size = strcspn(pattern, "/");
        if (size == 0)
            break;
        memcpy(part, pattern, size);
        part[size] = '\0';
        pattern += size;
        if (strpbrk(part, "*?[\\")) {
            expand_folder(walk, length, part, pattern);
            return;
        }
        if (!append(walk, &length, part, size))
            return;
    }
    if (length)
        read_match(walk);
}

// Looking a program up asks for it in these folders one after the other.
static void look_up_folders(const struct walk *walk)
{
    for (size_t i = 0; i < sizeof program_folders / sizeof *program_folders; i++) {
        int fd = open_inside(walk, program_folders[i], O_PATH);
        if (fd >= 0)
            close(fd);
    }
}

// A small machine must not lose one file to make room for the next.
static size_t budget(void)
{
    struct sysinfo memory;
    if (sysinfo(&memory) != 0)
        return BYTES_MAX;
    unsigned long long half = (unsigned long long)memory.freeram * memory.mem_unit / 2;
    return half < BYTES_MAX ? (size_t)half : BYTES_MAX;
}

struct warm_result warm_files(const char *root, const struct mp_text *patterns, size_t count)
{
    static struct walk walk;
    memset(&walk, 0, sizeof walk);
    walk.root = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    walk.budget = budget();
    if (walk.root < 0)
        return walk.done;
    for (size_t i = 0; i < count; i++) {
        char pattern[WARM_PATTERN_MAX + 1];
        memcpy(pattern, patterns[i].bytes, patterns[i].length);
        pattern[patterns[i].length] = '\0';
        walk.path[0] = '\0';
        expand(&walk, 0, pattern);
    }
    look_up_folders(&walk);
    close(walk.root);
    return walk.done;
}
