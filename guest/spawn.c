#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cgroup.h"
#include "default_signals.h"
#include "smallfile.h"

#define INTO_CGROUP UINT64_C(0x200000000)
#ifndef SYS_clone3
#define SYS_clone3 435
#endif

struct child_ends {
    int input, output, error, status;
};

// Moves the five descriptors to 0, 1, 2 and 3 and closes all others. The sources are above 4: the agent keeps 0 to 4
// open from its start.
static bool arrange_descriptors(const struct child_ends *ends)
{
    return dup2(ends->input, 0) == 0 && dup2(ends->output, 1) == 1 && dup2(ends->error, 2) == 2 &&
           dup3(ends->status, STATUS_FD, O_CLOEXEC) == STATUS_FD && syscall(SYS_close_range, 4u, ~0u, 0u) == 0;
}

void unblock_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void run_child(const struct agent *agent, const struct spawn_plan *plan, const struct child_ends *ends)
{
    setsid();
    if (agent->proc >= 0) // the agent must not be the one that is killed when memory is short; children may
        write_kernel_file(agent->proc, "self/oom_score_adj", "0");
    if (!arrange_descriptors(ends))
        _exit(127);
    default_signals();
    umask(022);
    plan->run(agent, plan->context);
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

static bool open_reader(int *reader, int *writer)
{
    return open_pipe(reader, writer) && fcntl(*reader, F_SETFL, O_NONBLOCK) == 0;
}

static bool open_nothing(int *fd, int access)
{
    *fd = open("/dev/null", access | O_CLOEXEC);
    return *fd >= 0;
}

static int another(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

// The loop watches input and output by themselves, so the master has a descriptor for each.
static bool open_terminal_ends(const struct spawn_plan *plan, struct child_ends *child, struct spawned *agent)
{
    agent->outputs[0] = plan->terminal->master;
    child->input = plan->terminal->peer;
    child->output = another(child->input);
    child->error = another(child->input);
    if (plan->wants_stdin && (agent->input = another(agent->outputs[0])) < 0)
        return false;
    return child->output >= 0 && child->error >= 0;
}

static bool open_pipe_ends(const struct spawn_plan *plan, struct child_ends *child, struct spawned *agent)
{
    bool input = plan->wants_stdin
                     ? open_pipe(&child->input, &agent->input) && fcntl(agent->input, F_SETFL, O_NONBLOCK) == 0
                     : open_nothing(&child->input, O_RDONLY);
    if (!input || !open_reader(&agent->outputs[0], &child->output))
        return false;
    return plan->wants_stderr ? open_reader(&agent->outputs[1], &child->error) : open_nothing(&child->error, O_WRONLY);
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

bool spawn(struct agent *agent, uint32_t session, const struct spawn_plan *plan, struct spawned *spawned)
{
    struct child_ends ends = {-1, -1, -1, -1};
    bool in_cgroup = plan->in_cgroup && agent->cgroups >= 0;
    int cgroup = -1;
    *spawned = (struct spawned){.pid = -1, .status = -1, .input = -1, .outputs = {-1, -1}};
    bool ready = plan->terminal ? open_terminal_ends(plan, &ends, spawned) : open_pipe_ends(plan, &ends, spawned);
    ready = ready && open_reader(&spawned->status, &ends.status);
    if (ready && in_cgroup) {
        cgroup = cgroup_create(agent->cgroups, session);
        spawned->has_cgroup = ready = cgroup >= 0;
    }
    if (ready)
        spawned->pid = cgroup >= 0 ? fork_into(cgroup) : fork();
    if (spawned->pid == 0)
        run_child(agent, plan, &ends);
    close_all((int[]){ends.input, ends.output, ends.error, ends.status, cgroup}, 5);
    if (spawned->pid > 0)
        return true;
    close_all((int[]){spawned->input, spawned->outputs[0], spawned->outputs[1], spawned->status}, 4);
    if (in_cgroup) {
        int saved = errno;
        cgroup_remove(agent->cgroups, session);
        errno = saved;
    }
    return false;
}
