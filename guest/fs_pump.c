#include "fs_pump.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum {
    PIPE_SIZE = 256 * 1024, // a window: more would only be memory that the host's credit does not bound
    SPLICE_MOST = 1024 * 1024,
};

static char bytes[PIPE_SIZE]; // of what cannot be spliced

bool fs_write_all(int fd, const void *from, size_t count)
{
    const char *at = from;
    while (count) {
        ssize_t written = write(fd, at, count);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        at += written;
        count -= (size_t)written;
    }
    return true;
}

static ssize_t copy_once(int from, int to, size_t most)
{
    ssize_t count = read(from, bytes, most < sizeof bytes ? most : sizeof bytes);
    if (count > 0 && !fs_write_all(to, bytes, (size_t)count))
        return -1;
    return count;
}

bool fs_pump(int from, int to, int64_t most, int64_t *moved)
{
    bool can_splice = true;
    for (int64_t left = most; left != 0;) {
        size_t now = left < 0 || left > SPLICE_MOST ? SPLICE_MOST : (size_t)left;
        ssize_t count = can_splice ? splice(from, NULL, to, NULL, now, SPLICE_F_MOVE) : copy_once(from, to, now);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && can_splice && errno == EINVAL) { // files of /proc, terminals and other devices
            can_splice = false;
            continue;
        }
        if (count < 0)
            return false;
        if (count == 0)
            break;
        *moved += count;
        if (left > 0)
            left -= count;
    }
    return true;
}

void fs_widen(int pipe)
{
    fcntl(pipe, F_SETPIPE_SZ, PIPE_SIZE);
}
