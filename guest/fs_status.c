#include "fs_status.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

// From the kernel's linux/stat.h, which not every libc brings.
struct kernel_time {
    int64_t seconds;
    uint32_t nanoseconds;
    int32_t reserved;
};

struct kernel_statx {
    uint32_t mask, block_size;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, spare0;
    uint64_t ino, size, blocks, attributes_mask;
    struct kernel_time atime, birth, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t spare[14];
};

_Static_assert(sizeof(struct kernel_statx) == 256, "the kernel writes so much");

enum { BASIC_AND_BIRTH = 0x0fff };

static int64_t nanoseconds(const struct kernel_time *time)
{
    int64_t ns;
    if (__builtin_mul_overflow(time->seconds, INT64_C(1000000000), &ns) ||
        __builtin_add_overflow(ns, (int64_t)time->nanoseconds, &ns))
        return time->seconds < 0 ? INT64_MIN : INT64_MAX; // a file system can hold more years than the wire
    return ns;
}

bool fs_status(int folder, const char *name, bool follow, struct file_status *status)
{
    struct kernel_statx statx;
    int flags = (follow ? 0 : AT_SYMLINK_NOFOLLOW) | (*name ? 0 : AT_EMPTY_PATH);
    if (syscall(SYS_statx, folder, name, flags, BASIC_AND_BIRTH, &statx) != 0)
        return false;
    *status = (struct file_status){
        .mode = statx.mode,
        .size = (int64_t)statx.size,
        .uid = statx.uid,
        .gid = statx.gid,
        .nlink = statx.nlink,
        .ino = (int64_t)(statx.ino & INT64_MAX), // no negative number on the wire
        .dev = (int64_t)makedev(statx.dev_major, statx.dev_minor),
        .rdev = (int64_t)makedev(statx.rdev_major, statx.rdev_minor),
        .atime_ns = nanoseconds(&statx.atime),
        .mtime_ns = nanoseconds(&statx.mtime),
        .ctime_ns = nanoseconds(&statx.ctime),
        .birth_ns = nanoseconds(&statx.birth), // 0 where the file system does not know
    };
    return true;
}

struct timespec fs_time(int64_t ns)
{
    struct timespec time = {ns / 1000000000, ns % 1000000000};
    if (time.tv_nsec < 0) {
        time.tv_sec--;
        time.tv_nsec += 1000000000;
    }
    return time;
}
