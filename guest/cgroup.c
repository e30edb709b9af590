#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "smallfile.h"

int cgroup_open_root(const char *mount_point)
{
    int hierarchy = open(mount_point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (hierarchy < 0)
        return -1;
    int root = -1;
    if (mkdirat(hierarchy, "trio_sandbox", 0755) == 0 || errno == EEXIST)
        root = openat(hierarchy, "trio_sandbox", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int saved = errno;
    close(hierarchy);
    errno = saved;
    return root;
}

int cgroup_create(int root, uint32_t session)
{
    char path[40];
    snprintf(path, sizeof path, "%u", session);
    if (mkdirat(root, path, 0755) != 0 && errno != EEXIST)
        return -1;
    return openat(root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

bool cgroup_kill(int root, uint32_t session)
{
    char path[40];
    snprintf(path, sizeof path, "%u/cgroup.kill", session);
    return write_kernel_file(root, path, "1");
}

bool cgroup_remove(int root, uint32_t session)
{
    char path[16];
    snprintf(path, sizeof path, "%u", session);
    return unlinkat(root, path, AT_REMOVEDIR) == 0 || errno == ENOENT;
}
