// list: the entries of a folder, one msgpack map each, as they come: no folder is too large.
#include "fs_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs_entries.h"
#include "fs_pump.h"
#include "fs_status.h"

enum {
    ENTRY_MAX = 1024 + FS_NAME_MAX + PATH_BYTES_MAX, // bytes of one map, generously
    BATCH = 64 * 1024,
};

static struct fs_entries entries;
static uint8_t batch[BATCH + ENTRY_MAX];

static void write_bytes(struct mp_writer *writer, const char *key, const char *bytes, size_t count)
{
    mp_write_str(writer, key);
    mp_write_bytes(writer, MP_BIN, bytes, count);
}

// 1: written; 0: the entry is gone; -1: errno.
static int write_entry(struct mp_writer *writer, const char *name)
{
    struct file_status status;
    char target[PATH_BYTES_MAX];
    ssize_t length = 0;
    if (!fs_status(entries.folder, name, false, &status))
        return errno == ENOENT ? 0 : -1;
    bool link = S_ISLNK((mode_t)status.mode);
    if (link && (length = readlinkat(entries.folder, name, target, sizeof target)) < 0)
        return errno == ENOENT || errno == EINVAL ? 0 : -1; // EINVAL: something else has its name now
    mp_write_map(writer, 1 + FILE_STATUS_KEYS + link);
    write_bytes(writer, "name", name, strlen(name));
    write_file_status(writer, &status);
    if (link)
        write_bytes(writer, "target", target, (size_t)length);
    return 1;
}

bool fs_list(const struct fs_request *request, struct fs_result *result)
{
    int folder = open(request->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return fs_fail(result, errno, request->path);
    struct mp_writer writer = {.at = batch, .end = batch + sizeof batch};
    const char *name;
    unsigned char type;
    entries_begin(&entries, folder);
    for (int found; (found = entries_next(&entries, &name, &type)) != 0;) {
        int written = found < 0 ? -1 : write_entry(&writer, name);
        if (written < 0)
            return fs_fail(result, errno, request->path);
        result->count += written;
        if (writer.at < batch + BATCH)
            continue;
        if (!fs_write_all(STDOUT_FILENO, batch, (size_t)(writer.at - batch)))
            return fs_fail(result, errno, request->path);
        writer.at = batch;
    }
    return fs_write_all(STDOUT_FILENO, batch, (size_t)(writer.at - batch)) || fs_fail(result, errno, request->path);
}
