// The operations that are little more than one system call each.
#include "fs_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs_place.h"
#include "fs_status.h"
#include "fs_within.h"
#include "user.h"

enum { NEW_FOLDER = 0755 }; // 0777 less the umask

static bool outcome(bool done, const struct fs_request *request, struct fs_result *result)
{
    return done || fs_fail(result, errno, request->path);
}

bool fs_stat(const struct fs_request *request, struct fs_result *result)
{
    result->has_status = fs_status(AT_FDCWD, request->path, request->follow, &result->status);
    return outcome(result->has_status, request, result);
}

bool fs_readlink(const struct fs_request *request, struct fs_result *result)
{
    // The kernel has no longer ones, and the last byte stays the NUL that is there.
    return outcome(readlink(request->path, result->target, PATH_BYTES_MAX) >= 0, request, result);
}

static bool is_folder(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

// Makes what is missing of the folders above `path`, which is cut off and restored at each slash.
static bool make_parents(char *path, struct fs_result *result)
{
    for (char *at = path; (at = strchr(at + 1, '/'));) {
        *at = '\0';
        bool made = mkdir(path, NEW_FOLDER) == 0 || errno == EEXIST; // if that is no folder, the next one tells
        if (!made)
            return fs_fail(result, errno, path);
        *at = '/';
    }
    return true;
}

// mkdir(2) does not look at the set-user-id and set-group-id bits.
static bool make_folder(const char *path, mode_t mode)
{
    return mkdir(path, mode) == 0 && (!(mode & 06000) || chmod(path, mode) == 0);
}

static bool mkdir_within(const struct fs_request *request, mode_t mode, struct fs_result *result)
{
    struct fs_target target;
    if (!within_target(&target, request, true))
        return fs_fail(result, errno, request->path);
    if (mkdirat(target.folder, target.name, mode) == 0)
        return outcome(!(mode & 06000) || fchmodat(target.folder, target.name, mode, 0) == 0, request, result);
    if (errno != EEXIST)
        return fs_fail(result, errno, request->path);
    bool is_there = within_open(request, O_PATH | O_DIRECTORY) >= 0;
    return is_there || fs_fail(result, errno == EXDEV ? EXDEV : EEXIST, request->path);
}

bool fs_mkdir(const struct fs_request *request, struct fs_result *result)
{
    char path[PATH_BYTES_MAX + 1];
    strcpy(path, request->path);
    for (size_t length = strlen(path); length > 1 && path[length - 1] == '/';)
        path[--length] = '\0';
    umask(0);
    mode_t mode = request->mode >= 0 ? (mode_t)request->mode : NEW_FOLDER;
    if (*request->root)
        return mkdir_within(request, mode, result);
    if (make_folder(path, mode))
        return true;
    if (request->recursive && errno == ENOENT) {
        if (!make_parents(path, result))
            return false;
        if (make_folder(path, mode))
            return true;
    }
    int error = errno;
    if (request->recursive && error == EEXIST && is_folder(path))
        return true;
    return fs_fail(result, error, request->path);
}

bool fs_remove(const struct fs_request *request, struct fs_result *result)
{
    struct fs_target target;
    if (*request->root)
        return outcome(within_target(&target, request, false) && unlinkat(target.folder, target.name, 0) == 0, request,
                       result);
    return outcome(unlink(request->path) == 0, request, result);
}

bool fs_rename(const struct fs_request *request, struct fs_result *result)
{
    return outcome(rename(request->path, request->to) == 0, request, result);
}

bool fs_symlink(const struct fs_request *request, struct fs_result *result)
{
    struct fs_target target;
    if (!*request->root)
        return outcome(symlink(request->to, request->path) == 0, request, result);
    if (!within_target(&target, request, true))
        return fs_fail(result, errno, request->path);
    return outcome(request->replace ? place_node(target.folder, target.name, S_IFLNK, 0, request->to)
                                    : symlinkat(request->to, target.folder, target.name) == 0,
                   request, result);
}

// Mode of a file that is held by an O_PATH descriptor; the system call for it is newer than many kernels.
static bool chmod_held(int fd, mode_t mode)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return chmod(path, mode) == 0;
}

bool fs_chmod(const struct fs_request *request, struct fs_result *result)
{
    mode_t mode = (mode_t)request->mode;
    struct stat status;
    if (request->follow)
        return outcome(chmod(request->path, mode) == 0, request, result);
    int fd = open(request->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0)
        return fs_fail(result, errno, request->path);
    if (S_ISLNK(status.st_mode))
        return fs_fail(result, EOPNOTSUPP, request->path);
    return outcome(chmod_held(fd, mode), request, result);
}

bool fs_chown(const struct fs_request *request, struct fs_result *result)
{
    uid_t uid;
    gid_t gid;
    if (!owner_resolve(request->owner, &uid, &gid))
        return errno == ENOENT ? fs_fail_saying(result, EINVAL, request->path, "no such user or group")
                               : fs_fail(result, errno, request->path);
    int flags = request->follow ? 0 : AT_SYMLINK_NOFOLLOW;
    return outcome(fchownat(AT_FDCWD, request->path, uid, gid, flags) == 0, request, result);
}

bool fs_sync(const struct fs_request *request, struct fs_result *result)
{
    int fd = open(request->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return outcome(fd >= 0 && syncfs(fd) == 0, request, result);
}
