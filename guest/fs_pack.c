// pack: a tree as one stream of records and bytes, each folder before what is in it.
//
// What is asked for may be a link that leads there; what is in the tree is sent as it is.
//
// The size in a record is a promise. A file that grows meanwhile is cut at it; one that became shorter is an error,
// since whatever else were sent would not be the file.
#include "fs_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs_pump.h"
#include "fs_record.h"
#include "fs_status.h"
#include "fs_target.h"
#include "fs_walk.h"

enum { BATCH = 64 * 1024 }; // what is small goes out together

static struct walk walk;
static struct fs_record record;
static uint8_t batch[BATCH];
static size_t held;

static bool flush(void)
{
    size_t count = held;
    held = 0;
    return fs_write_all(STDOUT_FILENO, batch, count);
}

static bool send_record(const struct file_status *status)
{
    record.mode = status->mode;
    record.mtime_ns = status->mtime_ns;
    record.size = S_ISREG((mode_t)status->mode) ? status->size : 0;
    if (!S_ISLNK((mode_t)status->mode))
        *record.target = '\0';
    if (BATCH - held < RECORD_MAX && !flush())
        return false;
    struct mp_writer writer = {.at = batch + held, .end = batch + BATCH};
    record_write(&writer, &record);
    held = (size_t)(writer.at - batch);
    walk.result->count++;
    return true;
}

// Adds to the batch what is small enough for it. False: errno, 0 at an early end.
static bool send_few(int fd, size_t size)
{
    while (size) {
        ssize_t count = read(fd, batch + held, size);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            errno = count ? errno : 0;
            return false;
        }
        held += (size_t)count;
        size -= (size_t)count;
    }
    return true;
}

static bool send_bytes(int fd, int64_t size)
{
    int64_t moved = 0;
    if (size <= (int64_t)(BATCH - held))
        return send_few(fd, (size_t)size);
    if (!flush() || !fs_pump(fd, STDOUT_FILENO, size, &moved))
        return false;
    errno = 0;
    return moved == size;
}

// False: errno, 0 when the file became shorter.
static bool send_regular(int folder, const char *name)
{
    struct file_status status;
    // Should it have become a FIFO meanwhile, that must not hold us up.
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT; // it vanished
    bool sent = fs_status(fd, "", false, &status);
    if (sent && !S_ISREG((mode_t)status.mode)) {
        errno = ESTALE;
        sent = false;
    }
    sent = sent && send_record(&status) && send_bytes(fd, status.size);
    int saved = errno;
    close(fd);
    errno = saved;
    return sent;
}

static bool send_link(int folder, const char *name, const struct file_status *status)
{
    ssize_t length = readlinkat(folder, name, record.target, PATH_BYTES_MAX);
    if (length < 0)
        return false;
    record.target[length] = '\0';
    return send_record(status);
}

// Sends what `name` in `folder` is, if it is of a kind that travels; record.name is set. False: errno, 0 as above.
static bool send_other(int folder, const char *name)
{
    struct file_status status;
    if (!fs_status(folder, name, false, &status))
        return errno == ENOENT; // likewise
    bool regular = S_ISREG((mode_t)status.mode);
    if (!regular && !S_ISLNK((mode_t)status.mode))
        return true;
    return regular ? send_regular(folder, name) : send_link(folder, name, &status);
}

static bool set_name(const char *name)
{
    char path[PATH_BYTES_MAX + 1];
    if (!walk_path(&walk, name, path))
        return walk_fail(&walk, ENAMETOOLONG);
    const char *below = path + walk.root_length;
    strcpy(record.name, below + (*below == '/'));
    return true;
}

static const char shorter[] = "the file became shorter while it was read";

static bool fail_here(int error)
{
    return error ? walk_fail(&walk, error) : walk_fail_saying(&walk, EIO, shorter);
}

static bool send_folder(int fd)
{
    struct file_status status;
    return fs_status(fd, "", false, &status) && send_record(&status);
}

static bool send_tree(void)
{
    for (;;) {
        switch (walk_next(&walk)) {
        case WALK_FAILED:
            return false;
        case WALK_END:
            return true;
        case WALK_LEFT:
            break;
        case WALK_FOLDER:
            if (!set_name("") || !(send_folder(folders_top(&walk.folders)) || fail_here(errno)))
                return false;
            break;
        case WALK_OTHER:
            if (!set_name(walk.name) || !(send_other(walk.folder, walk.name) || fail_here(errno)))
                return false;
        }
    }
}

bool fs_pack(const struct fs_request *request, struct fs_result *result)
{
    struct fs_target target;
    struct file_status status;
    if (!target_open(&target, request->path, true) || !fs_status(target.folder, target.name, false, &status))
        return fs_fail(result, errno, request->path);
    fs_widen(STDOUT_FILENO);
    walk.result = result;
    if (S_ISDIR((mode_t)status.mode)) {
        int root = open_folder(target.folder, target.name, 0);
        if (root < 0 || !send_folder(root))
            return fs_fail(result, errno, request->path);
        if (!walk_begin(&walk, root, request->path, 0, result) || !send_tree())
            return false;
    } else if (!send_other(target.folder, target.name)) {
        return errno ? fs_fail(result, errno, request->path) : fs_fail_saying(result, EIO, request->path, shorter);
    }
    return flush() || fs_fail(result, errno, request->path);
}
