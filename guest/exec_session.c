// The kind of session that EXEC opens: a command.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "cgroup.h"
#include "clock.h"
#include "exec_child.h"
#include "exec_request.h"
#include "log.h"
#include "session.h"
#include "terminal.h"

static void fail_spawn(struct agent *agent, struct session *session, const struct spawn_failure *failure)
{
    char text[300];
    spawn_failure_text(failure, session->work, text, sizeof text);
    session_fail(agent, session, spawn_failure_kind(failure), failure->error, text);
}

static void release(struct agent *agent, struct session *session)
{
    (void)agent;
    free(session->work);
    session->work = NULL;
}

static void status_ready(struct agent *agent, struct session *session)
{
    struct spawn_failure failure;
    ssize_t count = read(session->status.fd, &failure, sizeof failure);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    watch_close(agent, &session->status);
    if (count == sizeof failure) {
        fail_spawn(agent, session, &failure);
        return;
    }
    // execve() closed the pipe, or the process was killed before it got there.
    struct message body = encode_started(session->pid);
    agent_send(agent, STARTED, session->slot, session->id, &body);
    release(agent, session);
    session_ready(agent, session);
}

static void kill_all(struct agent *agent, struct session *session)
{
    if (session->pid > 0) {
        kill(-session->pid, SIGKILL);
        kill(session->pid, SIGKILL); // it may not be in its own group yet
    }
    if (session->has_cgroup && !cgroup_kill(agent->cgroups, session->id) && errno != ENOENT)
        log_error("killing session %u: %m", session->id);
}

static void send_signal(struct agent *agent, struct session *session, int signal)
{
    (void)agent;
    // Before the child is in a group of its own it is alone, and keeps the signal until execve() is done.
    if (session->state == SESSION_STARTING)
        kill(session->pid, signal);
    else if (session->state == SESSION_RUNNING && kill(-session->pid, signal) != 0)
        kill(session->pid, signal);
}

static void finished(struct agent *agent, struct session *session, bool held)
{
    struct message body = encode_exited(session->exit_status, session->timed_out, held, &session->usage);
    session_finish(agent, session, EXITED, body.bytes, body.length);
}

static const struct session_kind exec_kind = {
    .status_ready = status_ready,
    .kill = kill_all,
    .finished = finished,
    .signal = send_signal,
    .release = release,
};

void exec_start(struct agent *agent, struct session *session, const uint8_t *body, size_t length)
{
    const char *problem;
    struct exec_request *request = exec_request_decode(body, length, &problem);
    if (!request) {
        session_fail(agent, session, problem ? "bad_args" : "out_of_memory", problem ? EINVAL : ENOMEM,
                     problem ? problem : "no memory for the request");
        return;
    }
    session->kind = &exec_kind;
    session->work = request;
    session_set_windows(session, request->window, request->stdin_window);
    session_set_deadline(session, request->deadline_ms);
    struct terminal terminal;
    if (request->tty && !terminal_open(agent, request->rows, request->cols, &terminal)) {
        fail_spawn(agent, session, &(struct spawn_failure){STAGE_TERMINAL, errno});
        return;
    }
    struct spawn_plan plan = {
        .terminal = request->tty ? &terminal : NULL,
        .wants_stdin = request->wants_stdin,
        .wants_stderr = true,
        .in_cgroup = true,
        .run = exec_child,
        .context = request,
    };
    if (request->timeout_ns)
        session->timeout = clock_now() + request->timeout_ns;
    if (!session_launch(agent, session, &plan, SESSION_STARTING))
        fail_spawn(agent, session, &(struct spawn_failure){STAGE_PREPARE, errno});
}
