#include "fs_request.h"

#include <stdlib.h>
#include <string.h>

#include "messages.h"

enum key {
    KEY_OP,
    KEY_PATH,
    KEY_TO,
    KEY_OWNER,
    KEY_USER,
    KEY_MODE,
    KEY_OFFSET,
    KEY_LENGTH,
    KEY_ATOMIC,
    KEY_FSYNC,
    KEY_FOLLOW,
    KEY_RECURSIVE,
    KEY_ROOT,
    KEY_REPLACE,
    KEY_APPEND,
    KEY_DEADLINE,
    KEY_WINDOW,
    KEY_STDIN_WINDOW,
    KEYS
};

static const char *const names[KEYS] = {
    "op",    "path",   "to",        "owner", "user",    "mode",   "offset",      "length", "atomic",
    "fsync", "follow", "recursive", "root",  "replace", "append", "deadline_ms", "window", "stdin_window",
};

static const char *const operations[FS_UNKNOWN] = {
    [FS_READ] = "read",         [FS_WRITE] = "write",   [FS_LIST] = "list",       [FS_STAT] = "stat",
    [FS_READLINK] = "readlink", [FS_MKDIR] = "mkdir",   [FS_REMOVE] = "remove",   [FS_REMOVE_DIR] = "remove_dir",
    [FS_COPY] = "copy",         [FS_RENAME] = "rename", [FS_SYMLINK] = "symlink", [FS_CHMOD] = "chmod",
    [FS_CHOWN] = "chown",       [FS_PACK] = "pack",     [FS_UNPACK] = "unpack",   [FS_SYNC] = "sync",
};

struct decoding {
    struct fs_request *request;
    char *strings; // where the next string goes
    const char *problem;
};

static void take_op(struct decoding *decoding, struct mp_reader *reader)
{
    struct mp_text text;
    if (!mp_read_str(reader, &text))
        return;
    int op = 0;
    while (op < FS_UNKNOWN && !mp_text_is(text, operations[op]))
        op++;
    decoding->request->op = (enum fs_op)op;
}

// Every string has a header of a byte or more in the message, so with its NUL it is no longer here than there.
static const char *take_text(struct decoding *decoding, struct mp_reader *reader, size_t most, const char *problem)
{
    struct mp_text text;
    if (!mp_read_str_or_bin(reader, &text))
        return "";
    if (text.length > most || memchr(text.bytes, 0, text.length)) {
        decoding->problem = problem;
        return "";
    }
    char *copy = decoding->strings;
    memcpy(copy, text.bytes, text.length);
    copy[text.length] = '\0';
    decoding->strings += text.length + 1;
    return copy;
}

static void take_value(struct decoding *decoding, enum key key, struct mp_reader *reader)
{
    struct fs_request *request = decoding->request;
    switch (key) {
    case KEY_OP:
        take_op(decoding, reader);
        break;
    case KEY_PATH:
        request->path = take_text(decoding, reader, PATH_BYTES_MAX, "the path is too long or contains a NUL byte");
        break;
    case KEY_TO:
        request->to = take_text(decoding, reader, PATH_BYTES_MAX, "the target is too long or contains a NUL byte");
        break;
    case KEY_OWNER:
        request->owner = take_text(decoding, reader, OWNER_BYTES_MAX, "the owner is too long or contains a NUL byte");
        break;
    case KEY_USER:
        request->user = take_text(decoding, reader, OWNER_BYTES_MAX, "the user is too long or contains a NUL byte");
        break;
    case KEY_MODE:
        mp_read_int(reader, -1, 07777, &request->mode);
        break;
    case KEY_OFFSET:
        mp_read_int(reader, 0, INT64_MAX, &request->offset);
        break;
    case KEY_LENGTH:
        mp_read_int(reader, -1, INT64_MAX, &request->length);
        break;
    case KEY_ATOMIC:
        mp_read_bool(reader, &request->atomic);
        break;
    case KEY_FSYNC:
        mp_read_bool(reader, &request->fsync);
        break;
    case KEY_FOLLOW:
        mp_read_bool(reader, &request->follow);
        break;
    case KEY_RECURSIVE:
        mp_read_bool(reader, &request->recursive);
        break;
    case KEY_ROOT:
        request->root = take_text(decoding, reader, PATH_BYTES_MAX, "the root is too long or contains a NUL byte");
        break;
    case KEY_REPLACE:
        mp_read_bool(reader, &request->replace);
        break;
    case KEY_APPEND:
        mp_read_bool(reader, &request->append);
        break;
    case KEY_DEADLINE:
        mp_read_int(reader, 0, MILLISECONDS_MAX, &request->deadline_ms);
        break;
    case KEY_WINDOW:
        mp_read_int(reader, 1, WINDOW, &request->window);
        break;
    default:
        mp_read_int(reader, 1, WINDOW, &request->stdin_window);
    }
}

static bool may_have_root(enum fs_op op)
{
    return op == FS_WRITE || op == FS_MKDIR || op == FS_REMOVE || op == FS_REMOVE_DIR || op == FS_SYMLINK ||
           op == FS_UNPACK;
}

static const char *find_problem(const struct fs_request *request)
{
    if (request->op == FS_UNKNOWN)
        return NULL;
    if (request->path[0] != '/')
        return "the path is not absolute";
    if (*request->root && request->root[0] != '/')
        return "the root is not an absolute path";
    if (*request->root && !may_have_root(request->op))
        return "this operation takes no root";
    if (!*request->root && (request->replace || request->append))
        return "replace and append need a root";
    if ((request->op == FS_COPY || request->op == FS_RENAME) && request->to[0] != '/')
        return "the target is not an absolute path";
    if (request->op == FS_SYMLINK && !request->to[0])
        return "a symbolic link to nothing";
    if (request->op == FS_CHMOD && request->mode < 0)
        return "chmod without a mode";
    if (request->op == FS_CHOWN && !request->owner[0])
        return "chown without an owner";
    return NULL;
}

struct fs_request *fs_request_decode(const uint8_t *body, size_t length, const char **problem)
{
    *problem = NULL;
    struct fs_request *request = calloc(1, sizeof *request + length);
    if (!request)
        return NULL;
    *request = (struct fs_request){.path = "", .to = "", .root = "", .owner = "", .user = ""};
    request->mode = request->length = -1;
    request->window = request->stdin_window = WINDOW;
    struct decoding decoding = {.request = request, .strings = (char *)(request + 1)};
    struct map_walk walk;
    map_begin(&walk, body, length);
    for (int key; (key = map_next(&walk, names, KEYS)) >= 0;)
        take_value(&decoding, (enum key)key, &walk.reader);
    if (decoding.problem)
        *problem = decoding.problem;
    else if (!map_complete(&walk, 1u << KEY_OP | 1u << KEY_PATH))
        *problem = "the FS message is malformed";
    else
        *problem = find_problem(request);
    if (!*problem)
        return request;
    free(request);
    return NULL;
}

bool fs_request_reads(const struct fs_request *request)
{
    return request->op == FS_WRITE || request->op == FS_UNPACK;
}
