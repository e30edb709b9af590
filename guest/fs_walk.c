#include "fs_walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "fs_target.h"

struct walk_level {
    size_t names;       // where those of the folders in this one begin
    size_t path_length; // of the folder that holds this one
    bool cut;           // its name did not fit into the path any more
};

static bool enter(struct walk *walk, int fd, const char *name)
{
    struct walk_level level = {.names = walk->names_size, .path_length = walk->path_length};
    if (!folders_push(&walk->folders, fd))
        return false;
    struct walk_level *levels = grow(walk->levels, &walk->levels_room, walk->folders.depth, sizeof level);
    if (!levels)
        return false;
    walk->levels = levels;
    size_t length = strlen(name);
    bool slash = walk->path_length > 0 && walk->path[walk->path_length - 1] != '/';
    level.cut = walk->folders.depth > 1 && walk->levels[walk->folders.depth - 2].cut;
    if (level.cut || walk->path_length + slash + length > PATH_BYTES_MAX) {
        level.cut = true;
    } else {
        if (slash)
            walk->path[walk->path_length++] = '/';
        memcpy(walk->path + walk->path_length, name, length);
        walk->path_length += length;
    }
    walk->levels[walk->folders.depth - 1] = level;
    entries_begin(&walk->entries, fd);
    walk->scanning = true;
    return true;
}

bool walk_begin(struct walk *walk, int root, const char *path, unsigned flags, struct fs_result *result)
{
    *walk = (struct walk){.flags = flags, .result = result};
    if (!enter(walk, root, path))
        return fs_fail(result, errno, path);
    walk->root_length = walk->path_length;
    return true;
}

bool walk_path(const struct walk *walk, const char *name, char path[PATH_BYTES_MAX + 1])
{
    size_t length = walk->path_length, more = strlen(name);
    bool slash = more > 0 && walk->path[length - 1] != '/';
    bool fits = !walk->levels[walk->folders.depth - 1].cut && length + slash + more <= PATH_BYTES_MAX;
    memcpy(path, walk->path, length);
    if (fits && slash)
        path[length++] = '/';
    if (fits) {
        memcpy(path + length, name, more);
        length += more;
    }
    path[length] = '\0';
    return fits;
}

bool walk_fail_saying(struct walk *walk, int error, const char *message)
{
    char path[PATH_BYTES_MAX + 1];
    // At WALK_FOLDER the path is that of the folder already.
    bool inside = walk->folder == folders_top(&walk->folders);
    walk_path(walk, inside ? walk->name : "", path);
    return fs_fail_saying(walk->result, error, path, message);
}

bool walk_fail(struct walk *walk, int error)
{
    return walk_fail_saying(walk, error, strerror(error));
}

static bool is_folder(int folder, const char *name, unsigned char type)
{
    struct stat status;
    if (type != DT_UNKNOWN)
        return type == DT_DIR;
    return fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode);
}

static bool remember(struct walk *walk, const char *name)
{
    size_t length = strlen(name) + 1;
    char *names = grow(walk->names, &walk->names_room, walk->names_size + length, 1);
    if (!names)
        return false;
    walk->names = names;
    memcpy(names + walk->names_size, name, length);
    walk->names_size += length;
    return true;
}

static void forget_last(struct walk *walk)
{
    const char *before = walk->names_size > 1 ? memrchr(walk->names, '\0', walk->names_size - 1) : NULL;
    walk->names_size = before ? (size_t)(before - walk->names) + 1 : 0;
}

static const char *last_name(struct walk *walk)
{
    const char *before = walk->names_size > 1 ? memrchr(walk->names, '\0', walk->names_size - 1) : NULL;
    return before ? before + 1 : walk->names;
}

static enum walk_event stop(struct walk *walk, int error, const char *name)
{
    char path[PATH_BYTES_MAX + 1];
    walk_path(walk, name, path);
    fs_fail(walk->result, error, path);
    return WALK_FAILED;
}

// WALK_OTHER for the next name that is no folder's; WALK_END when all names of the folder are seen.
static enum walk_event scan(struct walk *walk)
{
    unsigned char type;
    walk->folder = folders_top(&walk->folders);
    for (int found; (found = entries_next(&walk->entries, &walk->name, &type)) != 0;) {
        if (found < 0)
            return stop(walk, errno, "");
        if (!is_folder(walk->folder, walk->name, type))
            return WALK_OTHER;
        if (!remember(walk, walk->name))
            return stop(walk, errno, "");
    }
    walk->scanning = false;
    return WALK_END;
}

static enum walk_event entered(struct walk *walk, int fd)
{
    if (!enter(walk, fd, last_name(walk)))
        return stop(walk, errno, last_name(walk));
    walk->folder = folders_below(&walk->folders);
    walk->name = last_name(walk);
    return WALK_FOLDER;
}

static enum walk_event leave(struct walk *walk)
{
    const struct walk_level *level = &walk->levels[walk->folders.depth - 1];
    if (walk->folders.depth == 1)
        return WALK_END;
    walk->path_length = level->path_length;
    if (!folders_pop(&walk->folders))
        return stop(walk, errno, "");
    walk->folder = folders_top(&walk->folders);
    walk->name = last_name(walk);
    walk->leaving = true;
    return WALK_LEFT;
}

enum walk_event walk_next(struct walk *walk)
{
    if (walk->leaving) {
        forget_last(walk);
        walk->leaving = false;
    }
    if (walk->scanning) {
        enum walk_event event = scan(walk);
        if (event != WALK_END)
            return event;
    }
    while (walk->names_size > walk->levels[walk->folders.depth - 1].names) {
        int fd = open_folder(folders_top(&walk->folders), last_name(walk), walk->flags);
        if (fd >= 0)
            return entered(walk, fd);
        if (errno != ENOENT) // what is mounted on is as busy as rmdir(2) would find it
            return stop(walk, errno == EXDEV ? EBUSY : errno, last_name(walk));
        forget_last(walk);
    }
    return leave(walk);
}
