// unpack: makes the tree that a stream of records tells of. The stream may be hostile: it stays in the tree, whatever
// it says and whatever links there are; and so may be who changes the tree meanwhile.
//
// A folder that is there is filled and otherwise left as it is; a file that is there is replaced in one step.
#include "fs_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs_folders.h"
#include "fs_place.h"
#include "fs_pump.h"
#include "fs_record.h"
#include "fs_status.h"
#include "fs_target.h"
#include "fs_within.h"

// A folder that was made: it gets its mode and time at the end, when nothing is put into it any more.
struct late {
    size_t name; // where it begins in `names`
    mode_t mode;
    int64_t mtime_ns;
};

static uint8_t bytes[64 * 1024]; // of the stream, read and not used yet
static size_t begin, end;
static struct fs_record record;
static int root = -1;
static int parent = -1; // the folder that the last record was in
static char parent_name[PATH_BYTES_MAX + 1];
static struct late *lates;
static size_t late_count, lates_room;
static char *names;
static size_t names_size, names_room;
static const char *root_path;
static unsigned lookup = FS_BENEATH; // of what lies in the tree

static bool fail(struct fs_result *result, int error)
{
    char path[2 * PATH_BYTES_MAX + 2];
    snprintf(path, sizeof path, "%s%s%s", root_path, *record.name ? "/" : "", record.name);
    return fs_fail(result, error, path);
}

static bool malformed(struct fs_result *result)
{
    return fs_fail_saying(result, EBADMSG, root_path, "the stream is not one that pack makes");
}

// More of the stream. 1: some; 0: there is no more; -1: errno.
static int refill(void)
{
    memmove(bytes, bytes + begin, end - begin);
    end -= begin;
    begin = 0;
    ssize_t count;
    do {
        count = read(STDIN_FILENO, bytes + end, sizeof bytes - end);
    } while (count < 0 && errno == EINTR);
    if (count > 0)
        end += (size_t)count;
    return count > 0 ? 1 : (int)count;
}

// 1: `record`; 0: the stream is at its end; -1: *result.
static int next_record(struct fs_result *result)
{
    for (;;) {
        size_t length = 0;
        enum record_found found = record_read(bytes + begin, end - begin, &record, &length);
        begin += length;
        if (found == RECORD_WHOLE)
            return 1;
        int more = found == RECORD_PART ? refill() : 1;
        if (found == RECORD_WRONG || (more == 0 && begin != end)) {
            malformed(result);
            return -1;
        }
        if (more < 0)
            fs_fail(result, errno, root_path);
        if (more <= 0)
            return more;
    }
}

// The bytes of a file. False: errno, EBADMSG when the stream ends before them.
static bool receive(int fd, int64_t size)
{
    size_t here = end - begin;
    if ((uint64_t)size < here)
        here = (size_t)size;
    if (!fs_write_all(fd, bytes + begin, here))
        return false;
    begin += here;
    int64_t moved = 0, rest = size - (int64_t)here;
    if (!fs_pump(STDIN_FILENO, fd, rest, &moved))
        return false;
    errno = EBADMSG;
    return moved == rest;
}

static bool set_mode_and_time(int fd, mode_t mode, int64_t mtime_ns)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, fs_time(mtime_ns)};
    return fchmod(fd, mode) == 0 && futimens(fd, times) == 0;
}

static bool make_regular(int folder, const char *name)
{
    struct fs_place place;
    if (!place_begin(&place, folder, name, false))
        return false;
    if (receive(place.fd, record.size) && set_mode_and_time(place.fd, record.mode & 07777, record.mtime_ns))
        return place_commit(&place);
    place_abandon(&place);
    return false;
}

static bool make_link(int folder, const char *name)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, fs_time(record.mtime_ns)};
    return place_node(folder, name, S_IFLNK, 0, record.target) &&
           utimensat(folder, name, times, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool remember_folder(void)
{
    size_t length = strlen(record.name) + 1;
    struct late *more_lates = grow(lates, &lates_room, late_count + 1, sizeof *lates);
    char *more_names = more_lates ? grow(names, &names_room, names_size + length, 1) : NULL;
    if (more_lates)
        lates = more_lates;
    if (!more_names)
        return false;
    names = more_names;
    memcpy(names + names_size, record.name, length);
    lates[late_count++] = (struct late){names_size, record.mode & 07777, record.mtime_ns};
    names_size += length;
    return true;
}

static bool make_folder(int folder, const char *name)
{
    struct stat status;
    if (mkdirat(folder, name, 0700) == 0)
        return remember_folder();
    if (errno != EEXIST || fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return false;
    errno = ENOTDIR;
    return S_ISDIR(status.st_mode);
}

static bool make(int folder, const char *name)
{
    mode_t mode = (mode_t)record.mode;
    return S_ISREG(mode)   ? make_regular(folder, name)
           : S_ISLNK(mode) ? make_link(folder, name)
                           : make_folder(folder, name);
}

// The folder of the record, which has to be there. The last one is kept: most records are in the same. -1: errno.
static int find_parent(const char *name, size_t length)
{
    if (length == 0)
        return root;
    if (parent >= 0 && strlen(parent_name) == length && memcmp(parent_name, name, length) == 0)
        return parent;
    if (parent >= 0)
        close(parent);
    memcpy(parent_name, name, length);
    parent_name[length] = '\0';
    return parent = open_folder(root, parent_name, lookup);
}

static bool make_below(void)
{
    const char *slash = strrchr(record.name, '/');
    int folder = find_parent(record.name, slash ? (size_t)(slash - record.name) : 0);
    return folder >= 0 && make(folder, slash ? slash + 1 : record.name);
}

// The same within a root: nothing that is there is touched unless it may be, and then a link to a folder is as good as
// one.
static bool make_root_within(const struct fs_request *request)
{
    struct fs_target target;
    struct stat status;
    if (!within_target(&target, request, true))
        return false;
    bool exists = fstatat(target.folder, target.name, &status, AT_SYMLINK_NOFOLLOW) == 0;
    if (exists && !request->replace) {
        errno = EEXIST;
        return false;
    }
    if (exists && S_ISDIR((mode_t)record.mode))
        return within_open(request, O_PATH | O_DIRECTORY) >= 0;
    return make(target.folder, target.name);
}

// The record of the root itself: `path`, or where a link at its end leads to.
static bool make_root(const struct fs_request *request)
{
    struct fs_target target;
    if (*request->root)
        return make_root_within(request);
    return target_open(&target, root_path, true) && make(target.folder, target.name);
}

static bool open_root(const struct fs_request *request)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    root = *request->root ? within_open(request, flags) : open(root_path, flags);
    return root >= 0;
}

static bool finish_folders(struct fs_result *result)
{
    while (late_count) {
        const struct late *late = &lates[--late_count];
        strcpy(record.name, names + late->name);
        int fd = *record.name ? open_folder(root, record.name, lookup) : root;
        if (fd < 0 || !set_mode_and_time(fd, late->mode, late->mtime_ns))
            return fail(result, errno);
        if (fd != root)
            close(fd);
    }
    return true;
}

// The first record may be that of the root; without it the root has to be a folder that is there.
static int begin_tree(const struct fs_request *request, struct fs_result *result)
{
    int found = next_record(result);
    if (found < 0)
        return -1;
    bool is_root = found && !*record.name;
    if (is_root && !make_root(request)) {
        fail(result, errno);
        return -1;
    }
    if ((!is_root || S_ISDIR((mode_t)record.mode)) && !open_root(request)) {
        fs_fail(result, errno, root_path);
        return -1;
    }
    result->count = is_root;
    return is_root ? next_record(result) : found;
}

bool fs_unpack(const struct fs_request *request, struct fs_result *result)
{
    root_path = request->path;
    fs_widen(STDIN_FILENO);
    umask(0);
    if (*request->root)
        lookup |= FS_SAME_MOUNT;
    int found = begin_tree(request, result);
    for (; found > 0; found = next_record(result)) {
        if (!*record.name || root < 0) // a second root, or something in a root that is no folder
            return malformed(result);
        if (!make_below())
            return fail(result, errno);
        result->count++;
    }
    return found == 0 && finish_folders(result);
}
