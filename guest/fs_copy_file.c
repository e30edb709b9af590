#include "fs_copy_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs_place.h"
#include "fs_pump.h"

enum { CHUNK = 256 * 1024 };

static bool pread_and_write(int from, int to, int64_t at, int64_t end)
{
    static char bytes[CHUNK];
    while (at < end) {
        size_t now = end - at < CHUNK ? (size_t)(end - at) : CHUNK;
        ssize_t count = pread(from, bytes, now, at);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return count == 0;
        if (lseek(to, at, SEEK_SET) < 0 || !fs_write_all(to, bytes, (size_t)count))
            return false;
        at += count;
    }
    return true;
}

// One stretch without holes. A file that became shorter meanwhile ends earlier.
static bool copy_stretch(int from, int to, int64_t at, int64_t end)
{
    while (at < end) {
        int64_t source = at, target = at;
        ssize_t count = copy_file_range(from, &source, to, &target, (size_t)(end - at), 0);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG || errno == EIO))
            return false;
        if (count <= 0) // between file systems, or of a kind that the kernel cannot copy by itself
            return pread_and_write(from, to, at, end);
        at += count;
    }
    return true;
}

static bool copy_bytes(int from, int to, int64_t size)
{
    if (size == 0) // as files of /proc say that have something to read all the same
        return pread_and_write(from, to, 0, INT64_MAX);
    for (int64_t at = 0; at < size;) {
        int64_t data = lseek(from, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break; // nothing but a hole
        int64_t hole = data < 0 ? size : lseek(from, data, SEEK_HOLE);
        if (data < 0)
            data = at;
        if (hole < 0 || hole > size)
            hole = size;
        if (!copy_stretch(from, to, data, hole))
            return false;
        at = hole;
    }
    return ftruncate(to, size) == 0;
}

static bool is_forbidden(void)
{
    return errno == EPERM || errno == EINVAL; // the latter in a user namespace that does not know the owner
}

bool copy_attributes(int fd, const struct file_status *status)
{
    mode_t mode = (mode_t)status->mode & 07777;
    if (fchown(fd, (uid_t)status->uid, (gid_t)status->gid) != 0) {
        if (!is_forbidden())
            return false;
        mode &= 01777; // what ran with the rights of its owner must not run with those of another
    }
    struct timespec times[2] = {fs_time(status->atime_ns), fs_time(status->mtime_ns)};
    return fchmod(fd, mode) == 0 && futimens(fd, times) == 0;
}

static bool copy_regular(int from, const struct file_status *status, struct fs_at to, bool *at_target)
{
    struct fs_place place;
    *at_target = true;
    if (!place_begin(&place, to.folder, to.name, false))
        return false;
    bool copied = copy_bytes(from, place.fd, status->size);
    if (!copied)
        *at_target = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
    if (copied && copy_attributes(place.fd, status))
        return place_commit(&place);
    place_abandon(&place);
    return false;
}

static bool copy_node(const struct file_status *status, struct fs_at to, const char *link)
{
    mode_t mode = (mode_t)status->mode;
    if (!place_node(to.folder, to.name, (mode & S_IFMT) | 0600, (dev_t)status->rdev, link))
        return false;
    bool owned = fchownat(to.folder, to.name, (uid_t)status->uid, (gid_t)status->gid, AT_SYMLINK_NOFOLLOW) == 0;
    if (!owned && !is_forbidden())
        return false;
    if (!S_ISLNK(mode) && fchmodat(to.folder, to.name, mode & (owned ? 07777 : 01777), 0) != 0)
        return false;
    struct timespec times[2] = {fs_time(status->atime_ns), fs_time(status->mtime_ns)};
    return utimensat(to.folder, to.name, times, AT_SYMLINK_NOFOLLOW) == 0;
}

bool copy_file(struct fs_at from, const struct file_status *status, struct fs_at to, bool *at_target)
{
    *at_target = false;
    if (S_ISREG((mode_t)status->mode)) {
        struct file_status opened;
        // Should it have become a FIFO meanwhile, that must not hold us up.
        int fd = openat(from.folder, from.name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (fd < 0)
            return false;
        bool copied = fs_status(fd, "", false, &opened);
        if (copied && !S_ISREG((mode_t)opened.mode)) {
            errno = ESTALE;
            copied = false;
        }
        copied = copied && copy_regular(fd, &opened, to, at_target);
        int saved = errno;
        close(fd);
        errno = saved;
        return copied;
    }
    char link[PATH_BYTES_MAX + 1] = "";
    if (S_ISLNK((mode_t)status->mode) && readlinkat(from.folder, from.name, link, PATH_BYTES_MAX) < 0)
        return false;
    *at_target = true;
    return copy_node(status, to, link);
}
