// What the agent itself needs for one command: runs in the guest with the agent's own sources and priority. For each
// byte of its standard input it runs /bin/true and prints how many microseconds went by from before the fork until the
// process was reaped.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../guest/agent.h"
#include "../guest/cgroup.h"
#include "../guest/clock.h"
#include "../guest/exec_child.h"
#include "../guest/spawn.h"

enum { FIRST_SESSION = 1u << 30, PATIENCE_MS = 10000 }; // ids that no session of the real agent has by then

static struct agent agent;

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void wait_readable(int fd)
{
    if (poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, PATIENCE_MS) != 1)
        fail("poll");
}

static void run_once(uint32_t session, int signals)
{
    char *argv[] = {(char[]){"/bin/true"}, NULL}, *env[] = {(char[]){"PATH=/usr/bin:/bin"}, NULL, NULL};
    struct exec_request request = {.argv = argv, .env = env, .env_count = 1, .cwd = "/", .user = ""};
    struct spawn_plan plan = {.wants_stderr = true, .in_cgroup = true, .run = exec_child, .context = &request};
    struct spawned spawned;
    struct spawn_failure failure;
    struct signalfd_siginfo info;
    uint64_t began = clock_now();
    if (!spawn(&agent, session, &plan, &spawned))
        fail("spawn");
    wait_readable(spawned.status);
    if (read(spawned.status, &failure, sizeof failure) != 0)
        fail("exec");
    wait_readable(signals);
    if (read(signals, &info, sizeof info) != sizeof info || waitpid(spawned.pid, NULL, 0) != spawned.pid)
        fail("wait");
    uint64_t took = clock_now() - began;
    close(spawned.status);
    close(spawned.outputs[0]);
    close(spawned.outputs[1]);
    cgroup_remove(agent.cgroups, session);
    printf("%llu\n", (unsigned long long)took / 1000);
    fflush(stdout);
}

int main(void)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    for (int fd = 0; fd <= STATUS_FD + 1;) // spawn() counts on it
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    agent.is_init = true;
    agent.proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    agent.cgroups = cgroup_open_root("/sys/fs/cgroup");
    getrlimit(RLIMIT_NOFILE, &agent.open_files);
    struct sched_param parameter = {.sched_priority = 1};
    if (agent.proc < 0 || agent.cgroups < 0 ||
        syscall(SYS_sched_setscheduler, 0, SCHED_RR | SCHED_RESET_ON_FORK, &parameter) != 0)
        fail("set-up");
    int signals = signalfd(-1, &child, SFD_CLOEXEC);
    char byte;
    for (uint32_t session = FIRST_SESSION; read(STDIN_FILENO, &byte, 1) == 1; session++)
        run_once(session, signals);
    return 0;
}
