// remove_dir: a folder, with `recursive` all that is in it. Whoever moves or replaces folders meanwhile cannot make it
// remove anything outside: each name is looked up in a folder that is held open, and no link is followed.
#include "fs_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "fs_target.h"
#include "fs_walk.h"
#include "fs_within.h"

static struct walk walk;

static bool remove_one(int flags)
{
    if (unlinkat(walk.folder, walk.name, flags) == 0)
        walk.result->count++;
    else if (errno != ENOENT) // somebody was faster
        return walk_fail(&walk, errno);
    return true;
}

static bool empty(void)
{
    for (;;) {
        switch (walk_next(&walk)) {
        case WALK_FAILED:
            return false;
        case WALK_END:
            return true;
        case WALK_FOLDER:
            break;
        case WALK_OTHER:
            if (!remove_one(0))
                return false;
            break;
        case WALK_LEFT:
            if (!remove_one(AT_REMOVEDIR))
                return false;
        }
    }
}

static bool open_target(struct fs_target *target, const struct fs_request *request)
{
    return *request->root ? within_target(target, request, false) : target_open(target, request->path, false);
}

static bool remove_tree(const struct fs_request *request, struct fs_result *result)
{
    struct fs_target target;
    if (!open_target(&target, request))
        return fs_fail(result, errno, request->path);
    if (strcmp(target.name, ".") == 0) // rmdir(2) refuses "/", "." and ".."; let it say so before anything is gone
        return fs_fail(result, *request->root ? EBUSY : rmdir(request->path) == 0 ? 0 : errno, request->path);
    int root = open_folder(target.folder, target.name, FS_SAME_MOUNT);
    if (root < 0) // a mount point could not be removed itself, so nothing in it is
        return fs_fail(result, errno == EXDEV ? EBUSY : errno, request->path);
    if (!walk_begin(&walk, root, request->path, FS_SAME_MOUNT, result) || !empty())
        return false;
    if (unlinkat(target.folder, target.name, AT_REMOVEDIR) != 0)
        return fs_fail(result, errno, request->path);
    result->count++;
    return true;
}

bool fs_remove_dir(const struct fs_request *request, struct fs_result *result)
{
    if (request->recursive)
        return remove_tree(request, result);
    struct fs_target target;
    if (*request->root ? !within_target(&target, request, false) || unlinkat(target.folder, target.name, AT_REMOVEDIR)
                       : rmdir(request->path))
        return fs_fail(result, errno, request->path);
    result->count = 1;
    return true;
}
