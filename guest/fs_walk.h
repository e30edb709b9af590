// Goes through a tree: each folder before what is in it, and once more after it. Symbolic links are not followed, the
// depth is not bounded, and of each folder only the names of the folders in it are held in memory. What vanishes
// meanwhile counts as never there.
#ifndef TRIO_SANDBOX_FS_WALK_H
#define TRIO_SANDBOX_FS_WALK_H

#include "fs_entries.h"
#include "fs_folders.h"
#include "fs_result.h"

enum walk_event {
    WALK_FAILED, // *result says why
    WALK_FOLDER, // `name` in `folder`, which is the top of `folders` now
    WALK_OTHER,  // `name` in `folder`: no folder
    WALK_LEFT,   // `name` in `folder`: a folder, all of which was seen
    WALK_END,
};

struct walk_level;

struct walk {
    int folder;
    const char *name; // until the next event
    struct fs_folders folders;
    unsigned flags; // FS_SAME_MOUNT
    struct fs_result *result;
    struct walk_level *levels;
    size_t levels_room;
    char *names; // of folders that are still to be entered, and of those in which we are, each with its NUL
    size_t names_size, names_room;
    bool scanning, leaving;
    struct fs_entries entries;
    size_t root_length;            // of `path`, where the tree begins
    size_t path_length;            // of the folder at the top
    char path[PATH_BYTES_MAX + 1]; // not terminated
};

// Takes `root`, an open folder that is called `path`. False: *result.
bool walk_begin(struct walk *walk, int root, const char *path, unsigned flags, struct fs_result *result);
enum walk_event walk_next(struct walk *walk);

// The whole path of `name` in the top folder ("" for that folder), or what fits of it. False: it is cut.
bool walk_path(const struct walk *walk, const char *name, char path[PATH_BYTES_MAX + 1]);

// fs_fail() about `name`, of the event that was last.
bool walk_fail(struct walk *walk, int error);
bool walk_fail_saying(struct walk *walk, int error, const char *message);

#endif
