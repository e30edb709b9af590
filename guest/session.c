#include "session.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "cgroup.h"
#include "clock.h"
#include "input.h"
#include "log.h"
#include "output.h"
#include "session_table.h"

enum { ASSEMBLING_MAX = 16 * 1024 * 1024 }; // of unfinished EXEC messages, all sessions together

#define KILL_PATIENCE NS_PER_S

static void release_request(struct agent *agent, struct session *session)
{
    free(session->request);
    free(session->parts);
    agent->assembling -= session->parts_length;
    session->request = NULL;
    session->parts = NULL;
    session->parts_length = 0;
}

static void end(struct agent *agent, struct session *session)
{
    release_request(agent, session);
    watch_close(agent, &session->status);
    input_close(agent, session);
    for (int i = 0; i < 2; i++)
        output_discard(agent, &session->outputs[i]);
    session->state = SESSION_OVER;
    session->deadline = session->settle_deadline = NEVER;
    session_table_close(agent, session);
}

static void fail(struct agent *agent, struct session *session, const char *kind, int error, const char *text)
{
    struct message body = encode_failed(kind, error, text);
    agent_send(agent, FAILED, session->slot, session->id, &body);
    end(agent, session);
}

static void fail_spawn(struct agent *agent, struct session *session, const struct spawn_failure *failure)
{
    char text[300];
    spawn_failure_text(failure, session->request, text, sizeof text);
    fail(agent, session, spawn_failure_kind(failure), failure->error, text);
}

static bool watch_process(struct agent *agent, struct session *session, const struct spawned *spawned)
{
    session->status = (struct watch){.kind = WATCH_STATUS, .fd = spawned->status, .session = session};
    bool input = input_open(agent, session, spawned->input);
    bool output = output_open(agent, session, 0, spawned->outputs[0]);
    bool error = output_open(agent, session, 1, spawned->outputs[1]);
    return watch_open(agent, &session->status, EPOLLIN) && input && output && error;
}

static void start(struct agent *agent, struct session *session)
{
    struct spawned spawned;
    if (!spawn(agent, session->id, session->request, &spawned)) {
        fail_spawn(agent, session, &(struct spawn_failure){STAGE_PREPARE, errno});
        return;
    }
    session->pid = spawned.pid;
    session->has_cgroup = spawned.has_cgroup;
    session->state = SESSION_STARTING;
    if (session->request->timeout_ns)
        session->deadline = clock_now() + session->request->timeout_ns;
    if (!watch_process(agent, session, &spawned)) {
        log_error("session %u: epoll: %m", session->id);
        session_kill(agent, session, KILLED_ABANDONED);
    }
}

static void decode_and_start(struct agent *agent, struct session *session, const uint8_t *body, size_t length)
{
    const char *problem;
    session->request = exec_request_decode(body, length, &problem);
    if (!session->request)
        fail(agent, session, problem ? "bad_args" : "out_of_memory", problem ? EINVAL : ENOMEM,
             problem ? problem : "no memory for the request");
    else
        start(agent, session);
}

static bool append_part(struct agent *agent, struct session *session, const uint8_t *body, size_t length)
{
    if (agent->assembling + length > ASSEMBLING_MAX)
        return false;
    uint8_t *parts = realloc(session->parts, session->parts_length + length + 1);
    if (!parts)
        return false;
    memcpy(parts + session->parts_length, body, length);
    session->parts = parts;
    session->parts_length += length;
    agent->assembling += length;
    return true;
}

// The first frame of an EXEC opens the session, unless its id was used before.
static struct session *open_session(struct agent *agent, const struct header *header)
{
    if (header->session <= agent->newest_session) {
        agent_refuse(agent, header, "session_reused", "session ids only grow");
        return NULL;
    }
    agent->newest_session = header->session;
    struct session *session = session_table_open(agent, header->session, header->slot);
    if (!session) {
        struct message body = encode_failed("too_many_sessions", EAGAIN, "too many sessions are open");
        agent_send(agent, FAILED, header->slot, header->session, &body);
    }
    return session;
}

void session_exec(struct agent *agent, const struct header *header, const uint8_t *body)
{
    struct session *session = session_find(agent, header->session);
    if (session && (session->state != SESSION_ASSEMBLING || session->slot != header->slot)) {
        agent_refuse(agent, header, "session_reused", "this session is open already");
        return;
    }
    if (!session && !(session = open_session(agent, header)))
        return;
    if (agent->phase == PHASE_TEMPLATE) {
        fail(agent, session, "other", EAGAIN, "a template runs no programs: IDENTIFY comes first");
    } else if (agent->phase != PHASE_SERVING) {
        fail(agent, session, "other", ESHUTDOWN, "the sandbox is stopping");
    } else if (!(header->flags & FLAG_MORE) && !session->parts) {
        decode_and_start(agent, session, body, header->length);
    } else if (session->parts_length + header->length > EXEC_MAX) {
        fail(agent, session, "bad_args", E2BIG, "the request is longer than 1 MiB");
    } else if (!append_part(agent, session, body, header->length)) {
        fail(agent, session, "out_of_memory", ENOMEM, "no memory for the request");
    } else if (!(header->flags & FLAG_MORE)) {
        decode_and_start(agent, session, session->parts, session->parts_length);
    }
}

static void started(struct agent *agent, struct session *session)
{
    struct message body = encode_started(session->pid);
    agent_send(agent, STARTED, session->slot, session->id, &body);
    release_request(agent, session);
    session->state = SESSION_RUNNING;
    input_write(agent, session);
    for (int i = 0; i < 2; i++)
        output_ready(agent, &session->outputs[i]);
}

void session_status_ready(struct agent *agent, struct session *session)
{
    struct spawn_failure failure;
    ssize_t count = read(session->status.fd, &failure, sizeof failure);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    watch_close(agent, &session->status);
    if (count != sizeof failure) {
        started(agent, session); // execve() closed the pipe, or the process was killed before it got there
        return;
    }
    fail_spawn(agent, session, &failure);
}

void session_signal(struct agent *agent, struct session *session, int signal)
{
    // Before the child is in a group of its own it is alone, and keeps the signal until execve() is done.
    if (session->state == SESSION_STARTING)
        kill(session->pid, signal);
    else if (session->state == SESSION_RUNNING && kill(-session->pid, signal) != 0)
        kill(session->pid, signal);
    else if (session->state == SESSION_ASSEMBLING)
        fail(agent, session, "other", ECANCELED, "ended by a signal before it was started");
}

void session_credit(struct agent *agent, struct session *session, const struct header *header, uint32_t credit)
{
    if (credit > WINDOW - session->credit) {
        agent_refuse(agent, header, "overdraw", "more credit than the window has");
        session_kill(agent, session, KILLED_REQUEST);
        return;
    }
    session->credit += credit;
    for (int i = 0; i < 2; i++)
        if (session->outputs[i].maybe_readable)
            output_ready(agent, &session->outputs[i]);
}

void session_kill(struct agent *agent, struct session *session, enum why_killed why)
{
    if (session->state == SESSION_ASSEMBLING) {
        fail(agent, session, "other", ECANCELED, "killed before it was started");
        return;
    }
    if (session->killed < why)
        session->killed = why;
    if (session->state == SESSION_STARTING || session->state == SESSION_RUNNING) {
        kill(-session->pid, SIGKILL);
        kill(session->pid, SIGKILL); // it may not be in its own group yet
    }
    if (session->has_cgroup && !cgroup_kill(agent->cgroups, session->id) && errno != ENOENT)
        log_error("killing session %u: %m", session->id);
    if (why == KILLED_ABANDONED)
        for (int i = 0; i < 2; i++)
            output_discard(agent, &session->outputs[i]);
    if (session->state == SESSION_FLUSHING) {
        session->settle_deadline = clock_now() + KILL_PATIENCE;
        session_settle(agent, session);
    }
}

static void send_exited(struct agent *agent, struct session *session, bool held_open)
{
    struct message body = encode_exited(session->exit_status, session->timed_out, held_open, &session->usage);
    agent_send_ordered(agent, EXITED, session->slot, session->id, &body);
    end(agent, session);
}

void session_settle(struct agent *agent, struct session *session)
{
    if (session->state != SESSION_FLUSHING)
        return;
    bool held = false, delivered = true;
    for (int i = 0; i < 2; i++)
        delivered &= output_delivered(agent, &session->outputs[i], &held);
    if (!delivered && !(session->impatient && session->killed >= KILLED_REQUEST))
        return;
    // After a kill nothing may be left when the end is reported. It takes the kernel a moment.
    if (session->has_cgroup && cgroup_remove(agent->cgroups, session->id))
        session->has_cgroup = false;
    if (session->killed && (held || session->has_cgroup) && !session->impatient)
        return;
    send_exited(agent, session, held);
}

bool session_reaped(struct agent *agent, pid_t pid, int status, const struct rusage *usage)
{
    struct session *session = session_table_by_pid(agent, pid);
    if (!session)
        return false;
    session->pid = -1;
    if (session->state == SESSION_STARTING)
        session_status_ready(agent, session);
    if (session->state != SESSION_RUNNING) // FAILED, and the child was what was left
        return true;
    session->exit_status = status;
    session->usage = *usage;
    session->deadline = NEVER;
    session->settle_deadline = session->killed ? clock_now() + KILL_PATIENCE : NEVER;
    session->state = SESSION_FLUSHING;
    for (int i = 0; i < 2; i++)
        output_begin_flush(agent, &session->outputs[i]);
    session_settle(agent, session);
    return true;
}
