// read and write: the bytes of one file.
#include "fs_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs_place.h"
#include "fs_pump.h"
#include "fs_within.h"

enum { NEW_FILE = 0644 }; // 0666 less the umask

bool fs_read(const struct fs_request *request, struct fs_result *result)
{
    struct stat status;
    int fd = open(request->path, O_RDONLY | O_CLOEXEC | O_NOCTTY); // of a FIFO, waits for its writer
    if (fd < 0 || fstat(fd, &status) != 0)
        return fs_fail(result, errno, request->path);
    if (S_ISDIR(status.st_mode))
        return fs_fail(result, EISDIR, request->path);
    if (request->offset > 0 && lseek(fd, request->offset, SEEK_SET) < 0)
        return fs_fail(result, errno, request->path);
    fs_widen(STDOUT_FILENO);
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return fs_pump(fd, STDOUT_FILENO, request->length, &result->count) || fs_fail(result, errno, request->path);
}

static bool receive(int fd, const struct fs_request *request, struct fs_result *result)
{
    fs_widen(STDIN_FILENO);
    return fs_pump(STDIN_FILENO, fd, -1, &result->count) || fs_fail(result, errno, request->path);
}

// Devices and FIFOs have nothing to write back, and say so by EINVAL.
static bool sync_file(int fd)
{
    return fsync(fd) == 0 || errno == EINVAL;
}

static bool write_in_place(const struct fs_request *request, struct fs_result *result)
{
    mode_t mode = request->mode >= 0 ? (mode_t)request->mode : NEW_FILE;
    umask(0);
    int fd = open(request->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, mode);
    if (fd < 0)
        return fs_fail(result, errno, request->path);
    if (!receive(fd, request, result))
        return false;
    if (request->fsync) {
        struct fs_target target;
        if (!sync_file(fd) || !target_open(&target, request->path, true))
            return fs_fail(result, errno, request->path);
        int folder = openat(target.folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (folder < 0 || !sync_file(folder))
            return fs_fail(result, errno, request->path);
    }
    // Some file systems tell only now that there is no room.
    return close(fd) == 0 || fs_fail(result, errno, request->path);
}

// A file that is replaced stays whose it was. Early, so that nobody sends a gigabyte for nothing.
static bool keep_owner(const struct fs_place *place, const struct stat *old, const struct fs_request *request,
                       struct fs_result *result)
{
    struct stat made;
    if (fstat(place->fd, &made) == 0 && made.st_uid == old->st_uid && made.st_gid == old->st_gid)
        return true;
    return fchown(place->fd, old->st_uid, old->st_gid) == 0 ||
           fs_fail_saying(result, errno, request->path, "the new file cannot have the owner of the old one");
}

static bool fill(struct fs_place *place, const struct stat *old, const struct fs_request *request,
                 struct fs_result *result)
{
    mode_t mode = old ? old->st_mode & 07777 : request->mode >= 0 ? (mode_t)request->mode : NEW_FILE;
    if (old && !keep_owner(place, old, request, result))
        return false;
    if (!receive(place->fd, request, result))
        return false;
    // Now: a change of the owner and a write each take the set-user-id bit away.
    if (fchmod(place->fd, mode) != 0 || (request->fsync && fsync(place->fd) != 0))
        return fs_fail(result, errno, request->path);
    return true;
}

static bool write_atomically(const struct fs_request *request, const struct stat *old, struct fs_result *result)
{
    struct fs_target target;
    struct fs_place place;
    int folder = -1;
    if (!target_open(&target, request->path, true))
        return fs_fail(result, errno, request->path);
    // Before anything is done, since it may be forbidden: to read a folder takes another right than to write in it.
    if (request->fsync && (folder = openat(target.folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return fs_fail(result, errno, request->path);
    if (!place_begin(&place, target.folder, target.name, true))
        return fs_fail(result, errno, request->path);
    if (!fill(&place, old, request, result)) {
        place_abandon(&place);
        return false;
    }
    if (!place_commit(&place) || (folder >= 0 && fsync(folder) != 0))
        return fs_fail(result, errno, request->path);
    return true;
}

// A new file of exactly that name: a link there is replaced, and nothing is kept of what was there.
static bool write_within(const struct fs_request *request, struct fs_result *result)
{
    struct fs_target target;
    struct fs_place place;
    struct stat old;
    if (!within_target(&target, request, true))
        return fs_fail(result, errno, request->path);
    bool exists = fstatat(target.folder, target.name, &old, AT_SYMLINK_NOFOLLOW) == 0;
    if (exists && (!request->replace || S_ISDIR(old.st_mode)))
        return fs_fail(result, request->replace ? EISDIR : EEXIST, request->path);
    if (!place_begin(&place, target.folder, target.name, request->replace))
        return fs_fail(result, errno, request->path);
    if (!request->replace && strcmp(place.made_as, place.name) != 0)
        fs_fail(result, EEXIST, request->path); // since we looked
    if (result->error || !fill(&place, NULL, request, result)) {
        place_abandon(&place);
        return false;
    }
    return place_commit(&place) || fs_fail(result, errno, request->path);
}

// Opened to be looked at first: to open a device or a FIFO for writing may do something.
static bool append_within(const struct fs_request *request, struct fs_result *result)
{
    char held[32];
    struct stat status;
    int fd = within_open(request, O_PATH);
    if (fd < 0 || fstat(fd, &status) != 0)
        return fs_fail(result, errno, request->path);
    if (!S_ISREG(status.st_mode))
        return fs_fail_saying(result, EINVAL, request->path, "not a regular file");
    snprintf(held, sizeof held, "/proc/self/fd/%d", fd);
    int file = open(held, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (file < 0)
        return fs_fail(result, errno, request->path);
    if (!receive(file, request, result))
        return false;
    return close(file) == 0 || fs_fail(result, errno, request->path);
}

bool fs_write(const struct fs_request *request, struct fs_result *result)
{
    if (*request->root)
        return request->append ? append_within(request, result) : write_within(request, result);
    struct stat old;
    bool exists = stat(request->path, &old) == 0;
    if (!exists && errno != ENOENT) // of a name that is a dangling link too
        return fs_fail(result, errno, request->path);
    bool asks_for_folder = request->path[strlen(request->path) - 1] == '/';
    if (exists ? S_ISDIR(old.st_mode) : asks_for_folder)
        return fs_fail(result, EISDIR, request->path);
    if (request->atomic && (!exists || S_ISREG(old.st_mode)))
        return write_atomically(request, exists ? &old : NULL, result);
    return write_in_place(request, result);
}
