#include "fs_target.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

enum { LINKS_MAX = 40 }; // as the kernel has it

bool path_cut(char *path, const char **folder, const char **name)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        path[--length] = '\0';
    char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    if (!**name || strcmp(*name, ".") == 0 || strcmp(*name, "..") == 0) {
        *folder = path; // a folder surely, whatever its name is
        *name = ".";
        return true;
    }
    *folder = slash ? slash == path ? "/" : path : ".";
    if (slash && slash != path)
        *slash = '\0';
    errno = ENAMETOOLONG;
    return strlen(*name) <= FS_NAME_MAX;
}

bool target_open(struct fs_target *target, const char *path, bool follow)
{
    char buffer[PATH_BYTES_MAX + 1];
    int base = AT_FDCWD;
    strcpy(buffer, path);
    for (int links = 0; links <= LINKS_MAX; links++) {
        const char *folder, *name;
        target->folder = path_cut(buffer, &folder, &name) ? openat(base, folder, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
        int saved = errno;
        if (base >= 0)
            close(base);
        errno = saved;
        if (target->folder < 0)
            return false;
        strcpy(target->name, name);
        ssize_t length = follow ? readlinkat(target->folder, target->name, buffer, sizeof buffer) : -1;
        if (length < 0)
            return true; // no link. If there is another reason, whoever uses the name meets it too
        if ((size_t)length == sizeof buffer)
            break;
        buffer[length] = '\0';
        base = target->folder;
    }
    close(target->folder);
    errno = ELOOP;
    return false;
}

int open_by(int folder, const char *path, int flags, uint64_t resolve)
{
    // From the kernel's linux/openat2.h.
    struct {
        uint64_t flags, mode, resolve;
    } how = {.flags = (uint64_t)(unsigned)flags | O_CLOEXEC, .resolve = resolve};
    return (int)syscall(SYS_openat2, folder, path, &how, sizeof how);
}

int open_folder(int folder, const char *name, unsigned flags)
{
    return open_by(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, flags);
}
