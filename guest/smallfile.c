#include "smallfile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool close_with(int fd, bool done)
{
    int saved = errno;
    close(fd);
    errno = saved;
    return done;
}

ssize_t read_small_file(int folder, const char *path, char *text, size_t size)
{
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return -1;
    ssize_t length = read(fd, text, size - 1);
    close_with(fd, true);
    if (length < 0)
        return -1;
    while (length > 0 && text[length - 1] == '\n')
        length--;
    text[length] = '\0';
    return length;
}

bool write_kernel_file(int folder, const char *path, const char *text)
{
    int fd = openat(folder, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    return close_with(fd, write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

int open_emptied(const char *path)
{
    // O_NONBLOCK: opening a FIFO without a reader fails instead of waiting for one.
    int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0644);
    if (fd < 0)
        return -1;
    struct stat status;
    bool done = fstat(fd, &status) == 0;
    if (done && !S_ISREG(status.st_mode)) {
        errno = EINVAL;
        done = false;
    }
    // ext4 brings a file that was cut to nothing to the disk when it is closed, so an empty one is not cut again.
    if (done && status.st_size > 0)
        done = ftruncate(fd, 0) == 0;
    if (done)
        return fd;
    close_with(fd, false);
    return -1;
}

bool write_and_close(int fd, const char *text)
{
    return close_with(fd, write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

bool replace_file(const char *path, const char *text)
{
    int fd = open_emptied(path);
    return fd >= 0 && write_and_close(fd, text);
}
