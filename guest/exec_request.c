#include "exec_request.h"

#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "messages.h"

enum { ROWS = 24, COLS = 80 }; // of a terminal whose size nobody gave

enum key {
    KEY_ARGV,
    KEY_ENV,
    KEY_CWD,
    KEY_MAKE_CWD,
    KEY_USER,
    KEY_STDIN,
    KEY_RLIMITS,
    KEY_TIMEOUT,
    KEY_DEADLINE,
    KEY_TTY,
    KEY_ROWS,
    KEY_COLS,
    KEY_WINDOW,
    KEY_STDIN_WINDOW,
    KEYS
};

static const char *const names[KEYS] = {"argv",  "env",     "cwd",        "make_cwd",    "user",
                                        "stdin", "rlimits", "timeout_ms", "deadline_ms", "tty",
                                        "rows",  "cols",    "window",     "stdin_window"};

// The message is read twice: once to check it and to know the sizes, once to copy. `request` is NULL the first time.
struct pass {
    struct exec_request *request;
    char *strings; // where the next string goes
    uint32_t argv, env, limits;
    const char *problem;
};

static const char *take_string(struct pass *pass, struct mp_text text)
{
    if (!pass->request) {
        if (memchr(text.bytes, 0, text.length))
            pass->problem = "a string contains a NUL byte";
        return NULL;
    }
    char *copy = pass->strings;
    memcpy(copy, text.bytes, text.length);
    copy[text.length] = '\0';
    pass->strings += text.length + 1;
    return copy;
}

static uint32_t take_strings(struct pass *pass, struct mp_reader *reader, uint32_t most, char **array, bool assignments)
{
    uint32_t count;
    if (!mp_read_array(reader, &count))
        return 0;
    if (count > most) {
        pass->problem = "too many strings";
        count = 0;
        reader->failed = true;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct mp_text text;
        if (!mp_read_str_or_bin(reader, &text))
            return 0;
        if (assignments && (text.length == 0 || text.bytes[0] == '=' || !memchr(text.bytes, '=', text.length)))
            pass->problem = "an environment entry is not NAME=value";
        const char *copy = take_string(pass, text);
        if (array)
            array[i] = (char *)copy;
    }
    return count;
}

static const char *take_path(struct pass *pass, struct mp_reader *reader)
{
    struct mp_text text;
    return mp_read_str(reader, &text) ? take_string(pass, text) : NULL;
}

static rlim_t limit_of(int64_t number)
{
    return number < 0 ? RLIM_INFINITY : (rlim_t)number;
}

static uint32_t take_limits(struct pass *pass, struct mp_reader *reader)
{
    uint32_t count, three;
    if (!mp_read_array(reader, &count))
        return 0;
    if (count > RLIMITS_MAX) {
        pass->problem = "too many resource limits";
        reader->failed = true;
        return 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        int64_t resource, soft, hard;
        if (!mp_read_array(reader, &three) || three != 3 || !mp_read_int(reader, 0, 255, &resource) ||
            !mp_read_int(reader, -1, INT64_MAX, &soft) || !mp_read_int(reader, -1, INT64_MAX, &hard)) {
            reader->failed = true;
            return 0;
        }
        if (pass->request)
            pass->request->limits[i] =
                (struct resource_limit){(int)resource, {.rlim_cur = limit_of(soft), .rlim_max = limit_of(hard)}};
    }
    return count;
}

static void take_value(struct pass *pass, enum key key, struct mp_reader *reader)
{
    struct exec_request scratch = {0};
    struct exec_request *request = pass->request ? pass->request : &scratch;
    int64_t number = 0;
    switch (key) {
    case KEY_ARGV:
        pass->argv = take_strings(pass, reader, ARGV_MAX, request->argv, false);
        break;
    case KEY_ENV:
        pass->env = take_strings(pass, reader, ENV_MAX, request->env, true);
        break;
    case KEY_CWD:
        request->cwd = take_path(pass, reader);
        break;
    case KEY_MAKE_CWD:
        mp_read_bool(reader, &request->make_cwd);
        break;
    case KEY_USER:
        request->user = take_path(pass, reader);
        break;
    case KEY_STDIN:
        mp_read_bool(reader, &request->wants_stdin);
        break;
    case KEY_RLIMITS:
        pass->limits = take_limits(pass, reader);
        break;
    case KEY_TIMEOUT:
        mp_read_int(reader, 0, MILLISECONDS_MAX, &number);
        request->timeout_ns = (uint64_t)number * NS_PER_MS;
        break;
    case KEY_DEADLINE:
        mp_read_int(reader, 0, MILLISECONDS_MAX, &request->deadline_ms);
        break;
    case KEY_TTY:
        mp_read_bool(reader, &request->tty);
        break;
    case KEY_ROWS:
        read_terminal_size(reader, &request->rows);
        break;
    case KEY_COLS:
        read_terminal_size(reader, &request->cols);
        break;
    case KEY_WINDOW:
        read_window(reader, &request->window);
        break;
    default:
        read_window(reader, &request->stdin_window);
    }
}

static bool run_pass(struct pass *pass, const uint8_t *body, size_t length)
{
    struct map_walk walk;
    map_begin(&walk, body, length);
    for (int key; (key = map_next(&walk, names, KEYS)) >= 0;)
        take_value(pass, (enum key)key, &walk.reader);
    return map_complete(&walk, 1u << KEY_ARGV);
}

static struct exec_request *allocate(const struct pass *sizes, size_t strings)
{
    size_t pointers = (size_t)sizes->argv + 1 + (size_t)sizes->env + 2;
    size_t limits = sizes->limits * sizeof(struct resource_limit);
    struct exec_request *request = calloc(1, sizeof *request + pointers * sizeof(char *) + limits + strings);
    if (!request)
        return NULL;
    request->argv = (char **)(request + 1);
    request->env = request->argv + sizes->argv + 1;
    request->env_count = sizes->env;
    request->limits = (struct resource_limit *)(request->env + sizes->env + 2);
    request->limit_count = sizes->limits;
    request->cwd = "/";
    request->user = "";
    request->rows = ROWS;
    request->cols = COLS;
    request->window = request->stdin_window = WINDOW;
    return request;
}

struct exec_request *exec_request_decode(const uint8_t *body, size_t length, const char **problem)
{
    struct pass sizes = {0};
    bool whole = run_pass(&sizes, body, length);
    *problem = sizes.problem ? sizes.problem : !whole ? "the EXEC message is malformed" : NULL;
    if (!*problem && sizes.argv == 0)
        *problem = "argv is empty";
    if (*problem)
        return NULL;
    // Every string has a header of a byte or more in the message, so with its NUL it is no longer here than there.
    struct exec_request *request = allocate(&sizes, length);
    if (!request)
        return NULL;
    struct pass copy = {.request = request, .strings = (char *)(request->limits + sizes.limits)};
    run_pass(&copy, body, length);
    return request;
}
