#include "fs_folders.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    NEAR = 64,                    // levels that have a descriptor
    BYTES_MAX = 64 * 1024 * 1024, // of one array
};

void *grow(void *items, size_t *room, size_t wanted, size_t size)
{
    size_t more = *room ? *room : 64;
    while (more < wanted)
        more *= 2;
    if (more == *room)
        return items;
    void *moved = more * size <= BYTES_MAX ? realloc(items, more * size) : NULL;
    if (moved)
        *room = more;
    else
        errno = ENOMEM;
    return moved;
}

static bool identify(int fd, struct fs_folder *folder)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return false;
    *folder = (struct fs_folder){fd, status.st_dev, status.st_ino};
    return true;
}

bool folders_push(struct fs_folders *folders, int fd)
{
    struct fs_folder *stack = grow(folders->stack, &folders->room, folders->depth + 1, sizeof *stack);
    if (stack)
        folders->stack = stack;
    if (!stack || !identify(fd, &stack[folders->depth])) {
        close(fd);
        return false;
    }
    folders->depth++;
    if (folders->depth > NEAR) {
        struct fs_folder *far = &folders->stack[folders->depth - 1 - NEAR];
        if (far->fd >= 0)
            close(far->fd);
        far->fd = -1;
    }
    return true;
}

bool folders_pop(struct fs_folders *folders)
{
    struct fs_folder *top = &folders->stack[--folders->depth], *below = top - 1;
    bool found = true;
    if (folders->depth > 0 && below->fd < 0) {
        struct fs_folder back = {.fd = -1};
        int fd = openat(top->fd, "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        found = fd >= 0 && identify(fd, &back);
        if (found && (back.dev != below->dev || back.ino != below->ino)) {
            errno = ESTALE;
            found = false;
        }
        if (found)
            below->fd = fd;
        else if (fd >= 0)
            close(fd);
    }
    close(top->fd);
    return found;
}

int folders_top(const struct fs_folders *folders)
{
    return folders->stack[folders->depth - 1].fd;
}

int folders_below(const struct fs_folders *folders)
{
    return folders->stack[folders->depth - 2].fd;
}
