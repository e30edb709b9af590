#include "fs_record.h"

#include <string.h>
#include <sys/stat.h>

#include "messages.h"

enum { KEY_NAME, KEY_MODE, KEY_MTIME, KEY_SIZE, KEY_TARGET, KEYS };

static const char *const names[KEYS] = {"name", "mode", "mtime_ns", "size", "target"};

void record_write(struct mp_writer *writer, const struct fs_record *record)
{
    mp_write_map(writer, KEYS);
    mp_write_str(writer, names[KEY_NAME]);
    mp_write_bytes(writer, MP_BIN, record->name, strlen(record->name));
    write_pair_int(writer, names[KEY_MODE], record->mode);
    write_pair_int(writer, names[KEY_MTIME], record->mtime_ns);
    write_pair_int(writer, names[KEY_SIZE], record->size);
    mp_write_str(writer, names[KEY_TARGET]);
    mp_write_bytes(writer, MP_BIN, record->target, strlen(record->target));
}

static void read_text(struct mp_reader *reader, char text[PATH_BYTES_MAX + 1])
{
    struct mp_text found;
    if (!mp_read_bin(reader, &found))
        return;
    if (found.length > PATH_BYTES_MAX || memchr(found.bytes, 0, found.length)) {
        reader->failed = true;
        return;
    }
    memcpy(text, found.bytes, found.length);
    text[found.length] = '\0';
}

// Nothing but names between single slashes, and none that goes up.
static bool stays_inside(const char *name)
{
    while (*name) {
        size_t length = strcspn(name, "/");
        bool dots = (length == 1 || length == 2) && strspn(name, ".") >= length;
        if (length == 0 || dots || (name[length] && !name[length + 1]))
            return false;
        name += length + (name[length] == '/');
    }
    return true;
}

static bool is_sound(const struct fs_record *record)
{
    mode_t mode = (mode_t)record->mode;
    if (!stays_inside(record->name) || (!S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode)))
        return false;
    return (S_ISREG(mode) || record->size == 0) && (S_ISLNK(mode) ? *record->target : !*record->target);
}

enum record_found record_read(const uint8_t *bytes, size_t count, struct fs_record *record, size_t *length)
{
    struct mp_reader end = {.at = bytes, .end = bytes + (count < RECORD_MAX ? count : RECORD_MAX)};
    if (!mp_skip(&end))
        return count < RECORD_MAX ? RECORD_PART : RECORD_WRONG;
    *length = (size_t)(end.at - bytes);
    *record = (struct fs_record){0};
    struct map_walk walk;
    map_begin(&walk, bytes, *length);
    for (int key; (key = map_next(&walk, names, KEYS)) >= 0;) {
        switch (key) {
        case KEY_NAME:
            read_text(&walk.reader, record->name);
            break;
        case KEY_MODE:
            mp_read_int(&walk.reader, 0, UINT16_MAX, &record->mode);
            break;
        case KEY_MTIME:
            mp_read_int(&walk.reader, INT64_MIN, INT64_MAX, &record->mtime_ns);
            break;
        case KEY_SIZE:
            mp_read_int(&walk.reader, 0, INT64_MAX, &record->size);
            break;
        default:
            read_text(&walk.reader, record->target);
        }
    }
    return map_complete(&walk, (1u << KEYS) - 1) && is_sound(record) ? RECORD_WHOLE : RECORD_WRONG;
}
