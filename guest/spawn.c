#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cgroup.h"
#include "clock.h"
#include "default_signals.h"
#include "smallfile.h"
#include "user.h"

// Where the child keeps the status pipe: right above the standard descriptors.
enum { STATUS_FD = 3 };

#define INTO_CGROUP UINT64_C(0x200000000)
#ifndef SYS_clone3
#define SYS_clone3 435
#endif

// Where programs are looked for when the environment has no PATH. The environment itself stays as it was asked for.
static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

struct child_ends {
    int input, output, error, status;
};

static _Noreturn void give_up(int stage, int error)
{
    struct spawn_failure failure = {stage, error};
    ssize_t written = write(STATUS_FD, &failure, sizeof failure);
    (void)written; // the agent sees at least the exit
    _exit(127);
}

// Moves the five descriptors to 0, 1, 2 and 3 and closes all others. The sources are above 4: the agent keeps 0 to 4
// open from its start.
static bool arrange_descriptors(const struct child_ends *ends)
{
    return dup2(ends->input, 0) == 0 && dup2(ends->output, 1) == 1 && dup2(ends->error, 2) == 2 &&
           dup3(ends->status, STATUS_FD, O_CLOEXEC) == STATUS_FD && syscall(SYS_close_range, 4u, ~0u, 0u) == 0;
}

static void unblock_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void limit_resources(const struct agent *agent, const struct exec_request *request)
{
    setrlimit(RLIMIT_NOFILE, &agent->open_files);
    for (size_t i = 0; i < request->limit_count; i++)
        if (syscall(SYS_prlimit64, 0, request->limits[i].resource, &request->limits[i].limit, NULL) != 0)
            give_up(STAGE_RLIMIT, errno);
}

static void become(const struct agent *agent, const char *spec, const struct user *user)
{
    if (!agent->is_init && !*spec)
        return; // on a host the tests may run without privilege
    if (setgroups(user->group_count, user->groups) != 0 || setresgid(user->gid, user->gid, user->gid) != 0 ||
        setresuid(user->uid, user->uid, user->uid) != 0)
        give_up(STAGE_USER, errno);
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

static _Noreturn void run_child(const struct agent *agent, struct exec_request *request, const struct child_ends *ends)
{
    static struct user user;
    setsid();
    if (agent->proc >= 0) // the agent must not be the one that is killed when memory is short; commands may
        write_kernel_file(agent->proc, "self/oom_score_adj", "0");
    if (!arrange_descriptors(ends))
        _exit(127);
    default_signals();
    umask(022);
    if (!user_resolve(request->user, &user))
        give_up(STAGE_USER_LOOKUP, errno);
    add_home(request, &user);
    limit_resources(agent, request);
    become(agent, request->user, &user);
    if (request->cwd[0] != '/')
        give_up(STAGE_CWD, EINVAL);
    if (chdir(request->cwd) != 0)
        give_up(STAGE_CWD, errno);
    unblock_signals();
    execute(request);
}

static void close_all(int *fds, size_t count)
{
    int saved = errno;
    for (size_t i = 0; i < count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    errno = saved;
}

static bool open_pipe(int *reader, int *writer)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    *reader = ends[0];
    *writer = ends[1];
    return true;
}

static bool open_ends(const struct exec_request *request, struct child_ends *child, struct spawned *agent)
{
    if (request->wants_stdin) {
        if (!open_pipe(&child->input, &agent->input) || fcntl(agent->input, F_SETFL, O_NONBLOCK) != 0)
            return false;
    } else if ((child->input = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0) {
        return false;
    }
    return open_pipe(&agent->outputs[0], &child->output) && open_pipe(&agent->outputs[1], &child->error) &&
           open_pipe(&agent->status, &child->status) && fcntl(agent->outputs[0], F_SETFL, O_NONBLOCK) == 0 &&
           fcntl(agent->outputs[1], F_SETFL, O_NONBLOCK) == 0 && fcntl(agent->status, F_SETFL, O_NONBLOCK) == 0;
}

// A child that begins its life in this cgroup. To move there later, as fork() would need, waits for a grace period of
// the kernel's RCU: about 10 ms.
static pid_t fork_into(int cgroup)
{
    // From the kernel's linux/sched.h, which not every libc brings.
    struct {
        uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size,
            cgroup;
    } arguments = {.flags = INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)cgroup};
    return (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
}

bool spawn(struct agent *agent, uint32_t session, struct exec_request *request, struct spawned *spawned)
{
    struct child_ends ends = {-1, -1, -1, -1};
    int cgroup = -1;
    *spawned = (struct spawned){.pid = -1, .status = -1, .input = -1, .outputs = {-1, -1}};
    bool ready = open_ends(request, &ends, spawned);
    if (ready && agent->cgroups >= 0) {
        cgroup = cgroup_create(agent->cgroups, session);
        spawned->has_cgroup = ready = cgroup >= 0;
    }
    if (ready)
        spawned->pid = cgroup >= 0 ? fork_into(cgroup) : fork();
    if (spawned->pid == 0)
        run_child(agent, request, &ends);
    close_all((int[]){ends.input, ends.output, ends.error, ends.status, cgroup}, 5);
    if (spawned->pid > 0)
        return true;
    close_all((int[]){spawned->input, spawned->outputs[0], spawned->outputs[1], spawned->status}, 4);
    if (agent->cgroups >= 0) {
        int saved = errno;
        cgroup_remove(agent->cgroups, session);
        errno = saved;
    }
    return false;
}

const char *spawn_failure_kind(const struct spawn_failure *failure)
{
    switch (failure->stage) {
    case STAGE_PREPARE:
        return failure->error == EAGAIN || failure->error == ENOMEM ? "out_of_memory" : "other";
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
