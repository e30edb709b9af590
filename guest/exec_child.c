#include "exec_child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "messages.h"
#include "spawn.h"
#include "terminal.h"
#include "user.h"

// Where programs are looked for when the environment has no PATH. The environment itself stays as it was asked for.
static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

static _Noreturn void give_up(int stage, int error)
{
    struct spawn_failure failure = {stage, error};
    ssize_t written = write(STATUS_FD, &failure, sizeof failure);
    (void)written; // the agent sees at least the exit
    _exit(127);
}

static void limit_resources(const struct agent *agent, const struct exec_request *request)
{
    setrlimit(RLIMIT_NOFILE, &agent->open_files);
    for (size_t i = 0; i < request->limit_count; i++)
        if (syscall(SYS_prlimit64, 0, request->limits[i].resource, &request->limits[i].limit, NULL) != 0)
            give_up(STAGE_RLIMIT, errno);
}

static const char *variable(char *const *env, const char *name)
{
    size_t length = strlen(name);
    for (; *env; env++)
        if (strncmp(*env, name, length) == 0 && (*env)[length] == '=')
            return *env + length + 1;
    return NULL;
}

static void add_home(struct exec_request *request, const struct user *user)
{
    static char home[sizeof "HOME=" + HOME_MAX];
    if (!*user->home || variable(request->env, "HOME"))
        return;
    snprintf(home, sizeof home, "HOME=%s", user->home);
    request->env[request->env_count++] = home;
    request->env[request->env_count] = NULL;
}

// A file that is there and yet "not found" names an interpreter or loader that is missing.
static _Noreturn void report_exec(const char *path, int error)
{
    struct stat status;
    if (error == ENOENT && stat(path, &status) == 0)
        give_up(STAGE_INTERPRETER, error);
    give_up(STAGE_EXEC, error);
}

static _Noreturn void execute(struct exec_request *request)
{
    const char *name = request->argv[0];
    if (strchr(name, '/') || !*name) {
        execve(name, request->argv, request->env);
        report_exec(name, errno);
    }
    const char *search = variable(request->env, "PATH");
    bool refused = false;
    for (const char *at = search ? search : default_path;;) {
        size_t length = strcspn(at, ":");
        char path[4096];
        // An empty entry is the working directory, as in every shell.
        int needed = snprintf(path, sizeof path, "%.*s%s%s", (int)length, at, length ? "/" : "./", name);
        if (needed > 0 && (size_t)needed < sizeof path) {
            struct stat status;
            execve(path, request->argv, request->env);
            int error = errno;
            if (error == EACCES)
                refused = true;
            else if ((error != ENOENT && error != ENOTDIR) || stat(path, &status) == 0)
                report_exec(path, error);
        }
        if (!at[length])
            break;
        at += length + 1;
    }
    give_up(STAGE_EXEC, refused ? EACCES : ENOENT);
}

// As container runtimes do: the folder is root's, whoever works in it.
static void make_cwd(const char *cwd)
{
    struct stat status;
    char path[PATH_BYTES_MAX + 1];
    size_t length = strlen(cwd);
    if (length > PATH_BYTES_MAX || stat(cwd, &status) == 0 || errno != ENOENT)
        return;
    memcpy(path, cwd, length + 1);
    for (char *at = path; (at = strchr(at + 1, '/'));) {
        *at = '\0';
        mkdir(path, 0755);
        *at = '/';
    }
    mkdir(path, 0755); // where it could not be made, the change to it tells
}

_Noreturn void exec_child(const struct agent *agent, void *context)
{
    static struct user user;
    struct exec_request *request = context;
    if (!user_resolve(request->user, &user))
        give_up(STAGE_USER_LOOKUP, errno);
    add_home(request, &user);
    bool becomes = agent->is_init || *request->user; // on a host the tests may run without privilege
    if (request->tty && (!terminal_take() || (becomes && !terminal_give_to(user.uid))))
        give_up(STAGE_TERMINAL, errno);
    limit_resources(agent, request);
    if (request->make_cwd)
        make_cwd(request->cwd);
    if (becomes && !user_become(&user))
        give_up(STAGE_USER, errno);
    if (request->cwd[0] != '/')
        give_up(STAGE_CWD, EINVAL);
    if (chdir(request->cwd) != 0)
        give_up(STAGE_CWD, errno);
    unblock_signals();
    execute(request);
}

const char *spawn_failure_kind(const struct spawn_failure *failure)
{
    switch (failure->stage) {
    case STAGE_PREPARE:
        return failure->error == EAGAIN || failure->error == ENOMEM ? "out_of_memory" : "other";
    case STAGE_TERMINAL:
        return "pty_setup_failed";
    case STAGE_RLIMIT:
        return "resource_limit";
    case STAGE_USER_LOOKUP:
    case STAGE_USER:
        return "user_setup_failed";
    case STAGE_CWD:
        return "bad_cwd";
    default:
        break;
    }
    switch (failure->error) {
    case ENOENT:
    case ENOTDIR:
        return "not_found";
    case EACCES:
    case EPERM:
        return "permission_denied";
    case ENOEXEC:
    case ETXTBSY:
    case EISDIR:
    case EINVAL:
    case ELIBBAD:
    case ELOOP:
        return "not_executable";
    case E2BIG:
    case ENAMETOOLONG:
        return "bad_args";
    case EAGAIN: // RLIMIT_NPROC, looked at when the user changed
        return "resource_limit";
    case ENOMEM:
        return "out_of_memory";
    default:
        return "other";
    }
}

void spawn_failure_text(const struct spawn_failure *failure, const struct exec_request *request, char *text,
                        size_t size)
{
    static const char *const doing[] = {
        [STAGE_PREPARE] = "cannot start",
        [STAGE_TERMINAL] = "cannot make a terminal for",
        [STAGE_USER_LOOKUP] = "cannot look up user",
        [STAGE_RLIMIT] = "cannot set the resource limits of",
        [STAGE_USER] = "cannot become user",
        [STAGE_CWD] = "cannot enter the folder",
        [STAGE_EXEC] = "cannot execute",
        [STAGE_INTERPRETER] = "the interpreter is missing that is needed to execute",
    };
    const char *what = failure->stage == STAGE_CWD                                           ? request->cwd
                       : failure->stage == STAGE_USER || failure->stage == STAGE_USER_LOOKUP ? request->user
                                                                                             : request->argv[0];
    char name[200];
    printable(what, name, sizeof name);
    const char *why = failure->stage == STAGE_USER_LOOKUP && failure->error == ENOENT ? "no such user or group"
                                                                                      : strerror(failure->error);
    snprintf(text, size, "%s '%s': %s", doing[failure->stage], name, why);
}
