#include "shutdown.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "clock.h"
#include "event_server.h"
#include "log.h"
#include "reap.h"
#include "session.h"
#include "smallfile.h"

#define HANG_UP_GRACE NS_PER_S
#define KILL_PATIENCE (2 * NS_PER_S) // for processes to vanish after SIGKILL: longer means that a disk hangs
#define FLUSH_PATIENCE NS_PER_S      // for the host to take what is left

// A test's agent may not signal everybody, so it takes its sessions and, with SIGKILL, whatever else it adopted.
static void signal_own_processes(struct agent *agent, int signal)
{
    for (struct session *session = agent->sessions; session; session = session->next)
        if (session->pid > 0)
            kill(-session->pid, signal);
    if (signal != SIGKILL)
        return;
    char path[64], children[4096];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    if (read_small_file(-1, path, children, sizeof children) <= 0)
        return;
    char *at = children;
    for (long pid; (pid = strtol(at, &at, 10)) > 0;)
        kill((pid_t)pid, signal);
}

static void signal_processes(struct agent *agent, int signal)
{
    if (!agent->is_init)
        signal_own_processes(agent, signal);
    else if (kill(-1, signal) != 0 && errno != ESRCH)
        log_error("signalling all processes: %m");
}

static void enter(struct agent *agent, enum phase phase, uint64_t patience)
{
    agent->phase = phase;
    agent->deadline = clock_now() + patience;
}

static void ask_to_end(struct agent *agent, int signal)
{
    signal_processes(agent, signal);
    if (signal != SIGTERM) // the only one that helpers listen to
        for (struct session *session = agent->sessions; session; session = session->next)
            if (session->pid > 0 && session->kind && session->kind->is_helper)
                kill(session->pid, SIGTERM);
    signal_processes(agent, SIGCONT); // one that is stopped could not hear it
}

void shutdown_begin(struct agent *agent, uint64_t grace_ns, int signal)
{
    uint64_t deadline = clock_now() + grace_ns;
    if (agent->phase >= PHASE_TERM) {
        if (agent->phase == PHASE_TERM && deadline < agent->deadline)
            agent->deadline = deadline;
        return;
    }
    log_info("stopping");
    ask_to_end(agent, signal);
    enter(agent, PHASE_TERM, grace_ns);
    reap_children(agent);
}

void shutdown_hang_up(struct agent *agent)
{
    if (agent->hung_up)
        return;
    agent->hung_up = true;
    log_info("the host hung up");
    watch_close(agent, &agent->port);
    shutdown_begin(agent, HANG_UP_GRACE, SIGTERM);
}

// No program is left that could say anything to anybody.
static void stop_serving(struct agent *agent)
{
    event_server_close(agent);
    sessions_end_idle(agent);
    enter(agent, PHASE_FLUSH, FLUSH_PATIENCE);
}

void shutdown_tick(struct agent *agent, uint64_t now)
{
    if (agent->phase == PHASE_TERM && (agent->childless || now >= agent->deadline))
        enter(agent, PHASE_KILL, KILL_PATIENCE);
    if (agent->phase == PHASE_KILL) {
        // Again at every turn: what an exiting parent leaves is adopted, and has to go too.
        if (!agent->childless)
            signal_processes(agent, SIGKILL);
        if (agent->childless || now >= agent->deadline)
            stop_serving(agent);
    }
    if (agent->phase != PHASE_FLUSH)
        return;
    bool settled = agent->open_sessions == 0 && outbox_is_empty(&agent->outbox);
    if (settled || agent->hung_up || now >= agent->deadline) {
        sessions_finish(agent);
        agent->phase = PHASE_DONE;
    }
}
