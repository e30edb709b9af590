#include "boot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"
#include "smallfile.h"

static const struct {
    const char *type, *target, *options;
    unsigned long flags;
} mounts[] = {
    {"devtmpfs", "/dev", "mode=0755", MS_NOSUID},
    {"devpts", "/dev/pts", "mode=0620,gid=5,ptmxmode=0666", MS_NOSUID | MS_NOEXEC},
    {"tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV},
    {"proc", "/proc", "", MS_NOSUID | MS_NODEV | MS_NOEXEC},
    {"sysfs", "/sys", "", MS_NOSUID | MS_NODEV | MS_NOEXEC},
    {"cgroup2", "/sys/fs/cgroup", "", MS_NOSUID | MS_NODEV | MS_NOEXEC},
};

static const struct {
    const char *target, *path;
} dev_links[] = {
    {"/proc/self/fd", "/dev/fd"},
    {"/proc/self/fd/0", "/dev/stdin"},
    {"/proc/self/fd/1", "/dev/stdout"},
    {"/proc/self/fd/2", "/dev/stderr"},
};

const char *boot_mount(void)
{
    for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
        mkdir(mounts[i].target, 0755);
        // devtmpfs is there already when the kernel mounts it by itself.
        if (mount(mounts[i].type, mounts[i].target, mounts[i].type, mounts[i].flags, mounts[i].options) != 0 &&
            errno != EBUSY)
            return mounts[i].target;
    }
    for (size_t i = 0; i < sizeof dev_links / sizeof *dev_links; i++)
        if (symlink(dev_links[i].target, dev_links[i].path) != 0 && errno != EEXIST)
            log_info("%s: %m", dev_links[i].path);
    return NULL;
}

static bool load_module(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool loaded = syscall(SYS_finit_module, fd, "", 0) == 0 || errno == EEXIST;
    int saved = errno;
    close(fd);
    errno = saved;
    return loaded;
}

static int is_module(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot && strcmp(dot, ".ko") == 0;
}

static const char *load_folder(const char *folder)
{
    static char path[600];
    struct dirent **names;
    int count = scandir(folder, &names, is_module, alphasort);
    if (count < 0)
        return errno == ENOENT ? NULL : folder; // a kernel with all of it built in needs none
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        if (!load_module(path))
            return path;
        unlink(path); // the initramfs is memory
        free(names[i]);
    }
    free(names);
    return NULL;
}

const char *boot_load_modules(void)
{
    return load_folder("/modules");
}

const char *boot_load_file_system(const char *type)
{
    char folder[64];
    snprintf(folder, sizeof folder, "/modules/%s", type);
    return load_folder(folder);
}

const char *boot_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return "socket";
    bool up = ioctl(fd, SIOCSIFFLAGS, &request) == 0;
    int saved = errno;
    close(fd);
    errno = saved;
    return up ? NULL : "lo";
}

const char *boot_priority(void)
{
    // By number, since one libc has the function for looks only. Children start as ordinary processes.
    struct sched_param parameter = {.sched_priority = 1};
    if (syscall(SYS_sched_setscheduler, 0, SCHED_RR | SCHED_RESET_ON_FORK, &parameter) != 0)
        return "sched_setscheduler";
    return write_kernel_file(-1, "/proc/self/oom_score_adj", "-1000") ? NULL : "oom_score_adj";
}
