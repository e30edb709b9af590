#include "fs_helper.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fs_ops.h"
#include "fs_place.h"
#include "fs_pump.h"
#include "spawn.h"
#include "user.h"

static fs_operation *const operations[FS_UNKNOWN] = {
    [FS_READ] = fs_read,         [FS_WRITE] = fs_write,   [FS_LIST] = fs_list,       [FS_STAT] = fs_stat,
    [FS_READLINK] = fs_readlink, [FS_MKDIR] = fs_mkdir,   [FS_REMOVE] = fs_remove,   [FS_REMOVE_DIR] = fs_remove_dir,
    [FS_COPY] = fs_copy,         [FS_RENAME] = fs_rename, [FS_SYMLINK] = fs_symlink, [FS_CHMOD] = fs_chmod,
    [FS_CHOWN] = fs_chown,       [FS_PACK] = fs_pack,     [FS_UNPACK] = fs_unpack,   [FS_SYNC] = fs_sync,
};

static struct fs_result result;

bool fs_fail_saying(struct fs_result *into, int error, const char *path, const char *message)
{
    if (into->error)
        return false;
    into->error = error;
    snprintf(into->message, sizeof into->message, "%s", message);
    size_t length = strnlen(path, PATH_BYTES_MAX);
    memcpy(into->path, path, length);
    into->path[length] = '\0';
    return false;
}

bool fs_fail(struct fs_result *into, int error, const char *path)
{
    return fs_fail_saying(into, error, path, strerror(error));
}

static bool become(const struct agent *agent, const struct fs_request *request)
{
    static struct user user;
    if (!user_resolve(request->user, &user)) {
        result.no_user = true;
        return fs_fail_saying(&result, errno, "", errno == ENOENT ? "no such user or group" : strerror(errno));
    }
    // On a host the tests may run without privilege.
    if ((agent->is_init || *request->user) && !user_become(&user)) {
        result.no_user = true;
        return fs_fail(&result, errno, "");
    }
    return true;
}

// SIGTERM alone ends a helper early, so that nothing unfinished is left whatever signal stops the machine's programs.
// What SIGPIPE and SIGXFSZ would say comes as errors: EPIPE and EFBIG.
static void ignore_signals(void)
{
    for (int number = 1; number < NSIG; number++)
        if (number != SIGTERM) // which may wait already: to ignore it for a moment would be to lose it
            signal(number, SIG_IGN);
}

_Noreturn void fs_help(const struct agent *agent, void *context)
{
    const struct fs_request *request = context;
    if (become(agent, request)) {
        ignore_signals();
        place_handle_sigterm();
        unblock_signals();
        operations[request->op](request, &result);
    }
    if (!result.no_user)     // then the agent says FAILED and nothing else
        close(STDIN_FILENO); // first, so that the agent can tell the host to stop sending before it tells why
    fs_write_all(STATUS_FD, &result, sizeof result);
    _exit(0);
}
