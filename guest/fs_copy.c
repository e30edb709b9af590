// copy: a file, or a folder with all that is in it.
#include "fs_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs_copy_file.h"
#include "fs_target.h"
#include "fs_walk.h"

// One folder of the target that is being filled.
struct level {
    bool is_new; // so that it gets the attributes of its original. One that was there keeps its own
    struct file_status status;
};

static struct walk walk;
static struct fs_folders made;
static struct level *levels;
static size_t levels_room;

// Fails about what stands below `to` where the walk is below its root.
static bool fail_at_target(const struct fs_request *request, int error)
{
    char source[PATH_BYTES_MAX + 1], path[2 * PATH_BYTES_MAX + 2];
    bool inside = walk.folder == folders_top(&walk.folders);
    walk_path(&walk, inside ? walk.name : "", source);
    const char *below = source + walk.root_length;
    snprintf(path, sizeof path, "%s%s%s", request->to, *below && *below != '/' ? "/" : "", below);
    return fs_fail(walk.result, error, path);
}

// Makes the folder `name` in `folder`, or takes the one that is there, and puts it on top. False: errno.
static bool descend(int folder, const char *name, int original)
{
    struct level level;
    struct level *more = grow(levels, &levels_room, made.depth + 1, sizeof level);
    if (!more || !fs_status(original, "", false, &level.status))
        return false;
    levels = more;
    level.is_new = mkdirat(folder, name, 0700) == 0;
    if (!level.is_new && errno != EEXIST)
        return false;
    int fd = open_folder(folder, name, 0);
    if (fd < 0 || !folders_push(&made, fd))
        return false;
    levels[made.depth - 1] = level;
    walk.result->count++;
    return true;
}

// Last, since what is put into a folder changes its time, and its mode may forbid it. False: errno.
static bool finish_level(void)
{
    const struct level *level = &levels[made.depth - 1];
    return !level->is_new || copy_attributes(folders_top(&made), &level->status);
}

static bool copy_other(const struct fs_request *request)
{
    struct file_status status;
    struct fs_at from = {walk.folder, walk.name}, to = {folders_top(&made), walk.name};
    bool at_target = false;
    if (!fs_status(walk.folder, walk.name, false, &status))
        return errno == ENOENT || walk_fail(&walk, errno);
    if (!copy_file(from, &status, to, &at_target))
        return at_target ? fail_at_target(request, errno) : walk_fail(&walk, errno);
    walk.result->count++;
    return true;
}

static bool enter_folder(const struct fs_request *request)
{
    const struct fs_folder *entered = &walk.folders.stack[walk.folders.depth - 1], *copy = made.stack;
    if (entered->dev == copy->dev && entered->ino == copy->ino) // it is mounted there once more
        return walk_fail(&walk, EINVAL);
    return descend(folders_top(&made), walk.name, entered->fd) || fail_at_target(request, errno);
}

static bool copy_all(const struct fs_request *request)
{
    for (;;) {
        switch (walk_next(&walk)) {
        case WALK_FAILED:
            return false;
        case WALK_END:
            return finish_level() || fs_fail(walk.result, errno, request->to);
        case WALK_FOLDER:
            if (!enter_folder(request))
                return false;
            break;
        case WALK_OTHER:
            if (!copy_other(request))
                return false;
            break;
        case WALK_LEFT:
            if (!finish_level() || !folders_pop(&made))
                return fail_at_target(request, errno);
        }
    }
}

// Whether the folder `fd`, or one that it is in, is `root`. Goes up to the root of everything, by way of `..`.
static bool is_within(int fd, int root)
{
    struct stat wanted, here, above;
    int at = openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool within = false, more = at >= 0 && fstat(root, &wanted) == 0 && fstat(at, &here) == 0;
    while (more && !(within = here.st_dev == wanted.st_dev && here.st_ino == wanted.st_ino)) {
        int up = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        close(at);
        at = up;
        more = at >= 0 && fstat(at, &above) == 0 && (above.st_dev != here.st_dev || above.st_ino != here.st_ino);
        here = above;
    }
    if (at >= 0)
        close(at);
    return within;
}

static bool copy_folder(const struct fs_request *request, const struct fs_target *from, struct fs_result *result)
{
    struct fs_target to;
    int root = open_folder(from->folder, from->name, 0);
    if (root < 0)
        return fs_fail(result, errno, request->path);
    if (!target_open(&to, request->to, true))
        return fs_fail(result, errno, request->to);
    int existing = openat(to.folder, to.name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (is_within(existing >= 0 ? existing : to.folder, root))
        return fs_fail_saying(result, EINVAL, request->to, "a folder cannot be copied into itself");
    if (!walk_begin(&walk, root, request->path, 0, result))
        return false;
    return descend(to.folder, to.name, root) ? copy_all(request) : fs_fail(result, errno, request->to);
}

bool fs_copy(const struct fs_request *request, struct fs_result *result)
{
    struct fs_target from, to;
    struct file_status status;
    if (!target_open(&from, request->path, request->follow) || !fs_status(from.folder, from.name, false, &status))
        return fs_fail(result, errno, request->path);
    if (S_ISDIR((mode_t)status.mode))
        return request->recursive ? copy_folder(request, &from, result) : fs_fail(result, EISDIR, request->path);
    if (!target_open(&to, request->to, false))
        return fs_fail(result, errno, request->to);
    bool at_target;
    if (!copy_file((struct fs_at){from.folder, from.name}, &status, (struct fs_at){to.folder, to.name}, &at_target))
        return fs_fail(result, errno, at_target ? request->to : request->path);
    result->count = 1;
    return true;
}
