#include "fs_within.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NEW_FOLDER = 0755 };

// As the kernel's RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS and RESOLVE_IN_ROOT.
enum { STAYS = 0x01 | 0x02 | 0x10 };

static int open_root(const struct fs_request *request)
{
    return open(request->root, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static void close_keeping_errno(int fd)
{
    int saved = errno;
    if (fd >= 0)
        close(fd);
    errno = saved;
}

static int open_folder_in(int root, const char *path)
{
    return open_by(root, path, O_PATH | O_DIRECTORY, STAYS);
}

// Opens the folder `path` names, which is cut off and restored at each slash, and makes what is missing of it.
static int open_made(int root, char *path)
{
    int folder = open_folder_in(root, "/");
    for (char *name = path; folder >= 0 && *(name += strspn(name, "/"));) {
        char *end = name + strcspn(name, "/"), cut = *end;
        *end = '\0';
        int next = open_folder_in(root, path);
        if (next < 0 && errno == ENOENT) {
            if (mkdirat(folder, name, NEW_FOLDER) == 0)
                next = open_folder_in(root, path);
            else if (errno == EEXIST) // a link that leads nowhere
                errno = ENOENT;
        }
        close_keeping_errno(folder);
        folder = next;
        *end = cut;
        name = end;
    }
    return folder;
}

bool within_target(struct fs_target *target, const struct fs_request *request, bool make)
{
    char path[PATH_BYTES_MAX + 1], folder[PATH_BYTES_MAX + 1];
    const char *above, *name;
    strcpy(path, request->path);
    if (!path_cut(path, &above, &name))
        return false;
    int root = open_root(request);
    if (root < 0)
        return false;
    strcpy(folder, above);
    strcpy(target->name, name);
    target->folder = open_folder_in(root, folder);
    if (target->folder < 0 && errno == ENOENT && make)
        target->folder = open_made(root, folder);
    close_keeping_errno(root);
    return target->folder >= 0;
}

int within_open(const struct fs_request *request, int flags)
{
    int root = open_root(request);
    if (root < 0)
        return -1;
    int fd = open_by(root, request->path, flags, STAYS);
    close_keeping_errno(root);
    return fd;
}
