#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "disk.h"
#include "disk_root.h"
#include "event_command.h"
#include "log.h"

static bool has_events;
static int upper_fd = -1; // root folder of what is written to, which may have no path any more once we have moved

static bool find_device(const char *serial, char *device, size_t size)
{
    char name[DISK_NAME_MAX + 1];
    bool found = disk_find(serial, name);
    snprintf(device, size, "/dev/%s", found ? name : "");
    return found;
}

static const char *mount_disks(const char *base_serial, const char *upper_serial)
{
    char device[300];
    mkdir("/base", 0755);
    mkdir("/upper", 0755);
    if (!find_device(base_serial, device, sizeof device))
        return "no disk has the serial of the base";
    if (mount(device, "/base", "squashfs", MS_RDONLY, "") != 0)
        return "the base is not a squashfs that this kernel can mount";
    if (!find_device(upper_serial, device, sizeof device))
        return "no disk has the serial of the upper";
    // noinit_itable: no thread that fills the inode tables of a sparse file, which read as zeros anyway, with zeros.
    if (mount(device, "/upper", "ext4", 0, "noinit_itable") != 0)
        return "the upper is not an ext4 that this kernel can mount";
    upper_fd = open("/upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return upper_fd < 0 ? "/upper" : NULL;
}

static const char *mount_overlay(void)
{
    struct stat base;
    mkdir("/root", 0755);
    mkdir("/upper/work", 0700);
    // The upper folder's owner and mode become those of "/", so they start as the base has them.
    if (mkdir("/upper/upper", 0700) == 0 &&
        (stat("/base", &base) != 0 || chown("/upper/upper", base.st_uid, base.st_gid) != 0 ||
         chmod("/upper/upper", base.st_mode & 07777) != 0))
        return "/upper/upper";
    if (mount("overlay", "/root", "overlay", 0, "lowerdir=/base,upperdir=/upper/upper,workdir=/upper/work") != 0)
        return "the two disks cannot be joined";
    return NULL;
}

// A folder of the new root to mount on, made if need be. An image may have put a link there: it is not followed.
static bool mount_point(const char *name, char *path, size_t size, int *fd)
{
    char inside[64];
    snprintf(inside, sizeof inside, "/root/%s", name);
    if (mkdir(inside, 0755) != 0 && errno != EEXIST)
        return false;
    *fd = open(inside, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0)
        return false;
    snprintf(path, size, "/proc/self/fd/%d", *fd);
    return true;
}

static bool mount_on(const char *name, const char *source, const char *type, unsigned long flags, const char *options)
{
    char path[64];
    int fd;
    if (!mount_point(name, path, sizeof path, &fd))
        return false;
    bool mounted = mount(source, path, type, flags, options) == 0;
    int saved = errno;
    close(fd);
    errno = saved;
    return mounted;
}

// The folder of the agent itself, in memory, with room for its socket and for what the host puts there: scripts. The
// program is the agent's own file, so it costs no memory; an image that has something else there than a folder keeps
// it, and goes without events.
static bool offer_events(void)
{
    static const char program[] = "/root/" EVENTS_FOLDER "/bin/" EVENTS_PROGRAM;
    const unsigned long flags = MS_NOSUID | MS_NODEV;
    if (!mount_on(EVENTS_FOLDER, "tmpfs", "tmpfs", flags, "mode=0755,size=8m,nr_inodes=1024") ||
        mkdir("/root/" EVENTS_FOLDER "/bin", 0755) != 0)
        return false;
    int fd = open(program, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    if (fd < 0)
        return false;
    close(fd);
    return mount("/proc/self/exe", program, NULL, MS_BIND, NULL) == 0 &&
           mount(NULL, program, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | flags, NULL) == 0;
}

static const char *fill_root(void)
{
    if (!mount_on("dev", "/dev", NULL, MS_MOVE, NULL))
        return "/dev of the image is not a folder";
    if (!mount_on("sys", "/sys", NULL, MS_MOVE, NULL))
        return "/sys of the image is not a folder";
    if (!mount_on("tmp", "tmpfs", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"))
        log_info("/tmp stays on the disk: %m");
    if (!mount_on("run", "tmpfs", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"))
        log_info("/run stays on the disk: %m");
    has_events = offer_events();
    if (!has_events)
        log_error("there will be no events, /" EVENTS_FOLDER " cannot be mounted: %m");
    if (!mount_on("proc", "/proc", NULL, MS_MOVE, NULL)) // last: mount points are named by /proc/self/fd
        return "/proc of the image is not a folder";
    return NULL;
}

static const char *move_into_root(void)
{
    const char *problem = fill_root();
    if (problem)
        return problem;
    if (chdir("/root") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 || chdir("/") != 0)
        return "cannot move into the new root";
    return NULL;
}

const char *root_enter(const char *base_serial, const char *upper_serial)
{
    const char *problem = mount_disks(base_serial, upper_serial);
    if (!problem)
        problem = mount_overlay();
    return problem ? problem : move_into_root();
}

const char *root_enter_disk(const char *serial, const char *fstype)
{
    mkdir("/root", 0755);
    const char *problem = disk_root_mount(serial, fstype, "/root");
    if (problem)
        return problem;
    upper_fd = open("/root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return upper_fd < 0 ? "/root" : move_into_root();
}

bool root_has_events(void)
{
    return has_events;
}

bool root_sync(void)
{
    return upper_fd < 0 || syncfs(upper_fd) == 0;
}

bool root_release(void)
{
    enum { TRIES = 20 };
    sync();
    if (upper_fd < 0)
        return true;
    // The files of a process that was killed are closed a moment after it is reaped.
    for (int i = 0; i < TRIES; i++) {
        bool overlay = mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0;
        if (fchdir(upper_fd) == 0 && mount(NULL, ".", NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0 && overlay)
            return true;
        sleep_ns(10 * NS_PER_MS);
    }
    int saved = errno;
    sync();
    errno = saved;
    return false;
}
