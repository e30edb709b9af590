#include "disk_root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot.h"
#include "disk.h"
#include "gpt.h"
#include "smallfile.h"
#include "superblock.h"

#define BLKRRPART _IO(0x12, 95) // from the kernel's linux/fs.h, which not every libc brings

enum { VOLUMES_MAX = 128 }; // as many as a GUID partition table usually has room for

struct volume {
    char name[DISK_NAME_MAX + 1];
    unsigned number;    // of the partition
    uint64_t sectors;   // of 512 bytes
    bool is_typed_root; // its partition table says so
};

static struct volume volumes[VOLUMES_MAX];
static size_t volume_count;
static uint8_t start[SUPERBLOCK_REACH]; // of the disk, then of each volume

static char report[400]; // what was found, for the host's error
static size_t report_length;

static void __attribute__((format(printf, 1, 2))) tell(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t room = sizeof report - report_length;
    int length = vsnprintf(report + report_length, room, format, arguments);
    va_end(arguments);
    if (length > 0)
        report_length += (size_t)length < room ? (size_t)length : room - 1;
}

static int open_device(const char *name)
{
    char path[DISK_NAME_MAX + 8];
    snprintf(path, sizeof path, "/dev/%.*s", DISK_NAME_MAX, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

// -1: errno. The device is not kept open, or it could not be mounted.
static ssize_t read_start(const char *name)
{
    int fd = open_device(name);
    if (fd < 0)
        return -1;
    ssize_t length = pread(fd, start, sizeof start, 0);
    close(fd);
    return length;
}

// The disk may be known before its partitions are: look for them now, and wait for that.
static void scan_partitions(const char *disk)
{
    int fd = open_device(disk);
    if (fd < 0)
        return;
    ioctl(fd, BLKRRPART);
    close(fd);
}

// A number in a file of the kernel; 0 if there is none.
static uint64_t read_number(const char *disk, const char *volume, const char *file)
{
    char path[400], text[32];
    snprintf(path, sizeof path, "/sys/block/%s/%s/%s", disk, volume, file);
    return read_small_file(-1, path, text, sizeof text) > 0 ? strtoull(text, NULL, 10) : 0;
}

static void add_volume(const char *disk, const char *name, unsigned number, unsigned typed_root)
{
    struct volume *volume = &volumes[volume_count++];
    snprintf(volume->name, sizeof volume->name, "%.*s", DISK_NAME_MAX, name);
    volume->number = number;
    volume->sectors = read_number(disk, number ? name : ".", "size");
    volume->is_typed_root = number && number == typed_root;
}

static int best_first(const void *one, const void *other)
{
    const struct volume *a = one, *b = other;
    if (a->is_typed_root != b->is_typed_root)
        return a->is_typed_root ? -1 : 1;
    if (a->sectors != b->sectors)
        return a->sectors > b->sectors ? -1 : 1;
    return a->number < b->number ? -1 : 1;
}

static void find_volumes(const char *disk)
{
    ssize_t length = read_start(disk);
    unsigned typed_root = length > 0 ? gpt_root_partition(start, (size_t)length) : 0;
    char path[DISK_NAME_MAX + 16];
    snprintf(path, sizeof path, "/sys/block/%s", disk);
    scan_partitions(disk);
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && volume_count < VOLUMES_MAX && (entry = readdir(folder));) {
        uint64_t number = entry->d_name[0] == '.' ? 0 : read_number(disk, entry->d_name, "partition");
        if (number > 0 && number < UINT32_MAX)
            add_volume(disk, entry->d_name, (unsigned)number, typed_root);
    }
    if (folder)
        closedir(folder);
    if (volume_count == 0)
        add_volume(disk, disk, 0, 0);
    qsort(volumes, volume_count, sizeof *volumes, best_first);
}

static bool exists(int root, const char *path)
{
    struct stat status;
    return fstatat(root, path, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

// A partition for /usr has programs too, but nothing in /etc.
static bool holds_root(const char *target)
{
    static const char *const signs[] = {"etc/os-release", "sbin/init", "bin/sh", "usr/bin/sh", "usr/sbin/init"};
    int root = open(target, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool found = false;
    for (size_t i = 0; root >= 0 && !found && i < sizeof signs / sizeof *signs; i++)
        found = exists(root, "etc") && exists(root, signs[i]);
    if (root >= 0)
        close(root);
    return found;
}

static bool mount_if_root(const struct volume *volume, const char *type, const char *target)
{
    // Some distributions keep their root in a subvolume.
    static const char *const subvolumes[] = {"", "subvol=root", "subvol=@", "subvol=@rootfs"};
    size_t tries = strcmp(type, "btrfs") == 0 ? sizeof subvolumes / sizeof *subvolumes : 1;
    char path[DISK_NAME_MAX + 8];
    snprintf(path, sizeof path, "/dev/%.*s", DISK_NAME_MAX, volume->name);
    for (size_t i = 0; i < tries; i++) {
        if (mount(path, target, type, MS_RDONLY, subvolumes[i]) != 0) {
            if (i > 0)
                continue;
            tell(" which cannot be mounted (%s)", strerror(errno));
            return false;
        }
        if (holds_root(target))
            return true;
        umount(target);
    }
    // A disk without partitions leaves no choice, whatever is on it.
    if (volume->number == 0 && mount(path, target, type, MS_RDONLY, "") == 0)
        return true;
    tell(" without a root in it");
    return false;
}

static bool try_volume(const struct volume *volume, const char *fstype, const char *target)
{
    ssize_t length = read_start(volume->name);
    const char *type = length < 0 ? NULL : superblock_name(start, (size_t)length);
    tell("%s %s (%llu MiB) has %s", volume == volumes ? "" : ",", volume->name,
         (unsigned long long)(volume->sectors / 2048), type ? type : "nothing that is known");
    if (!type || !superblock_can_be_root(type) || (fstype[0] && strcmp(type, fstype) != 0))
        return false;
    if (boot_load_file_system(type)) {
        tell(" for which this kernel has no module");
        return false;
    }
    return mount_if_root(volume, type, target);
}

const char *disk_root_mount(const char *serial, const char *fstype, const char *target)
{
    char disk[DISK_NAME_MAX + 1];
    if (!disk_find(serial, disk))
        return "no disk has the serial of the root";
    find_volumes(disk);
    tell("no %sroot on the disk:", fstype[0] ? "such " : "");
    for (size_t i = 0; i < volume_count; i++) {
        if (!try_volume(&volumes[i], fstype, target))
            continue;
        if (mount(NULL, target, NULL, MS_REMOUNT, NULL) == 0)
            return NULL;
        tell(" which cannot be written to");
        return report;
    }
    errno = ENOENT;
    return report;
}
