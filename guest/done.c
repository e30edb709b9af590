#include "done.h"

#include "messages.h"

void write_file_status(struct mp_writer *writer, const struct file_status *status)
{
    write_pair_int(writer, "mode", status->mode);
    write_pair_int(writer, "size", status->size);
    write_pair_int(writer, "uid", status->uid);
    write_pair_int(writer, "gid", status->gid);
    write_pair_int(writer, "nlink", status->nlink);
    write_pair_int(writer, "ino", status->ino);
    write_pair_int(writer, "dev", status->dev);
    write_pair_int(writer, "rdev", status->rdev);
    write_pair_int(writer, "atime_ns", status->atime_ns);
    write_pair_int(writer, "mtime_ns", status->mtime_ns);
    write_pair_int(writer, "ctime_ns", status->ctime_ns);
    write_pair_int(writer, "birth_ns", status->birth_ns);
}

static void write_pair_bytes(struct mp_writer *writer, const char *key, struct mp_text text)
{
    mp_write_str(writer, key);
    mp_write_bytes(writer, MP_BIN, text.bytes, text.length < PATH_BYTES_MAX ? text.length : PATH_BYTES_MAX);
}

size_t encode_done(const struct done *done, uint8_t body[DONE_MAX])
{
    struct mp_writer writer = {.at = body, .end = body + DONE_MAX};
    mp_write_map(&writer, 6);
    write_pair_int(&writer, "errno", done->error);
    write_pair_text(&writer, "message", done->message ? done->message : "");
    write_pair_bytes(&writer, "path", done->path);
    write_pair_int(&writer, "count", done->count);
    write_pair_bytes(&writer, "target", done->target);
    mp_write_str(&writer, "status");
    if (done->status) {
        mp_write_map(&writer, FILE_STATUS_KEYS);
        write_file_status(&writer, done->status);
    } else {
        mp_write_nil(&writer);
    }
    return (size_t)(writer.at - body);
}
