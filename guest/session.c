#include "session.h"

#include <errno.h>
#include <fcntl.h>
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
#include "terminal.h"

enum {
    ASSEMBLING_MAX = 16 * 1024 * 1024, // of unfinished opening messages, all sessions together
    PIPE_USUAL = 64 * 1024,            // bytes that a new pipe holds
};

#define KILL_PATIENCE NS_PER_S

static void release_parts(struct agent *agent, struct session *session)
{
    free(session->parts);
    agent->assembling -= session->parts_length;
    session->parts = NULL;
    session->parts_length = 0;
}

static void end(struct agent *agent, struct session *session)
{
    release_parts(agent, session);
    watch_close(agent, &session->status);
    input_close(agent, session);
    for (int i = 0; i < 2; i++)
        output_discard(agent, &session->outputs[i]);
    session->state = SESSION_OVER;
    session->timeout = session->deadline = session->settle_deadline = NEVER;
    if (session->kind && session->kind->release)
        session->kind->release(agent, session);
    session_table_close(agent, session);
}

void session_leave(struct agent *agent, struct session *session)
{
    if (session->kind && session->kind->is_helper && session->pid > 0)
        kill(session->pid, SIGKILL);
    end(agent, session);
}

void session_fail(struct agent *agent, struct session *session, const char *kind, int error, const char *text)
{
    struct message body = encode_failed(kind, error, text);
    agent_send(agent, FAILED, session->slot, session->id, &body);
    end(agent, session);
}

void session_finish(struct agent *agent, struct session *session, enum frame_type type, const uint8_t *body,
                    size_t length)
{
    // Behind the output of other sessions only if it has to be behind its own.
    enum lane lane = session->spoke ? LANE_BULK : LANE_CONTROL;
    struct header header = {
        .length = (uint32_t)length, .type = (uint8_t)type, .slot = session->slot, .session = session->id};
    agent_send_frame(agent, lane, header, body);
    end(agent, session);
}

void session_finish_done(struct agent *agent, struct session *session, const struct done *done)
{
    uint8_t body[DONE_MAX];
    session_finish(agent, session, DONE, body, encode_done(done, body));
}

void session_set_windows(struct session *session, uint32_t window, uint32_t stdin_window)
{
    session->window = session->credit = window;
    session->input.window = stdin_window;
}

void session_set_deadline(struct session *session, int64_t milliseconds)
{
    session->deadline = milliseconds ? clock_now() + (uint64_t)milliseconds * NS_PER_MS : NEVER;
}

// A pipe as large as the session's window, so that neither end waits for a turn of the other more often than for
// credit. It is no harm if the kernel refuses.
static void widen(int pipe, uint32_t window)
{
    if (pipe >= 0 && window > PIPE_USUAL)
        fcntl(pipe, F_SETPIPE_SZ, window);
}

static bool watch_process(struct agent *agent, struct session *session, const struct spawned *spawned, bool terminal)
{
    session->status = (struct watch){.kind = WATCH_STATUS, .fd = spawned->status, .session = session};
    session->input.terminal = session->outputs[0].terminal = terminal;
    if (!terminal) {
        widen(spawned->input, session->input.window);
        widen(spawned->outputs[0], session->credit);
    }
    bool input = input_open(agent, session, spawned->input);
    bool output = output_open(agent, session, 0, spawned->outputs[0]);
    bool error = output_open(agent, session, 1, spawned->outputs[1]);
    return watch_open(agent, &session->status, EPOLLIN) && input && output && error;
}

bool session_launch(struct agent *agent, struct session *session, const struct spawn_plan *plan,
                    enum session_state state)
{
    struct spawned spawned;
    if (!spawn(agent, session->id, plan, &spawned))
        return false;
    session->pid = spawned.pid;
    session->has_cgroup = spawned.has_cgroup;
    session->state = state;
    if (!watch_process(agent, session, &spawned, plan->terminal != NULL)) {
        log_error("session %u: epoll: %m", session->id);
        session_kill(agent, session, KILLED_ABANDONED);
    }
    return true;
}

void session_produce(struct session *session)
{
    session->state = SESSION_RUNNING;
    session->outputs[0] = (struct output){
        .watch = {.kind = WATCH_OUTPUT, .fd = -1, .session = session}, .type = STDOUT, .produced = true};
}

void session_terminate(struct session *session)
{
    if (session->pid <= 0 || session->kill_deadline != NEVER)
        return;
    kill(session->pid, SIGTERM);
    session->kill_deadline = clock_now() + KILL_PATIENCE;
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

// The first frame opens the session, unless its id was used before.
static struct session *first_frame(struct agent *agent, const struct header *header)
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
        return NULL;
    }
    session->opened_by = (enum frame_type)header->type;
    return session;
}

static void begin(struct agent *agent, struct session *session, const uint8_t *body, size_t length)
{
    switch (session->opened_by) {
    case EXEC:
        exec_start(agent, session, body, length);
        break;
    case FS:
        fs_start(agent, session, body, length);
        break;
    case EMIT:
        events_emit(agent, session, body, length);
        break;
    default:
        events_subscribe(agent, session, body, length);
    }
    release_parts(agent, session);
}

void session_open(struct agent *agent, const struct header *header, const uint8_t *body)
{
    struct session *session = session_find(agent, header->session);
    if (session &&
        (session->state != SESSION_ASSEMBLING || session->slot != header->slot || session->opened_by != header->type)) {
        agent_refuse(agent, header, "session_reused", "this session is open already");
        return;
    }
    if (!session && !(session = first_frame(agent, header)))
        return;
    if (agent->phase == PHASE_TEMPLATE) {
        session_fail(agent, session, "other", EAGAIN, "a template runs no programs: IDENTIFY comes first");
    } else if (agent->phase != PHASE_SERVING) {
        session_fail(agent, session, "other", ESHUTDOWN, "the sandbox is stopping");
    } else if (!(header->flags & FLAG_MORE) && !session->parts) {
        begin(agent, session, body, header->length);
    } else if (session->parts_length + header->length > MAP_MAX) {
        session_fail(agent, session, "bad_args", E2BIG, "the request is longer than 1 MiB");
    } else if (!append_part(agent, session, body, header->length)) {
        session_fail(agent, session, "out_of_memory", ENOMEM, "no memory for the request");
    } else if (!(header->flags & FLAG_MORE)) {
        begin(agent, session, session->parts, session->parts_length);
    }
}

void session_ready(struct agent *agent, struct session *session)
{
    session->state = SESSION_RUNNING;
    input_write(agent, session);
    for (int i = 0; i < 2; i++)
        output_ready(agent, &session->outputs[i]);
}

void session_status_ready(struct agent *agent, struct session *session)
{
    session->kind->status_ready(agent, session);
}

void session_signal(struct agent *agent, struct session *session, int signal)
{
    if (session->state == SESSION_ASSEMBLING)
        session_fail(agent, session, "other", ECANCELED, "ended by a signal before it was started");
    else if (session->kind->signal) // the others have no process that the host knows
        session->kind->signal(agent, session, signal);
}

void session_resize(struct session *session, uint16_t rows, uint16_t cols)
{
    const struct output *output = &session->outputs[0];
    if (output->terminal && output->watch.fd >= 0) // a session without one has no size
        terminal_resize(output->watch.fd, rows, cols);
}

void session_credit(struct agent *agent, struct session *session, const struct header *header, uint32_t credit)
{
    if (credit > session->window - session->credit) {
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
        session_fail(agent, session, "other", ECANCELED, "killed before it was started");
        return;
    }
    if (session->killed < why)
        session->killed = why;
    session->kind->kill(agent, session);
    if (why == KILLED_ABANDONED)
        for (int i = 0; i < 2; i++)
            output_discard(agent, &session->outputs[i]);
    if (session->state == SESSION_FLUSHING) {
        session->settle_deadline = clock_now() + KILL_PATIENCE;
        session_settle(agent, session);
    }
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
    // After a kill nothing may be left when the end is reported. It takes the kernel a moment; after an ordinary end
    // the cgroup goes when the host has been told.
    if (session->killed && session->has_cgroup && cgroup_remove(agent->cgroups, session->id))
        session->has_cgroup = false;
    if (session->killed && (held || session->has_cgroup) && !session->impatient)
        return;
    session->kind->finished(agent, session, held);
}

bool session_reaped(struct agent *agent, pid_t pid, int status, const struct rusage *usage)
{
    struct session *session = session_table_by_pid(agent, pid);
    if (!session)
        return false;
    session->pid = -1;
    session->kill_deadline = NEVER;
    if (session->status.fd >= 0)
        session_status_ready(agent, session);
    if (session->state != SESSION_RUNNING) { // FAILED or left, and the child was what remained
        agent->sweep = true;
        return true;
    }
    session->exit_status = status;
    session->usage = *usage;
    session->timeout = NEVER;
    session->settle_deadline = session->killed ? clock_now() + KILL_PATIENCE : NEVER;
    session->state = SESSION_FLUSHING;
    for (int i = 0; i < 2; i++)
        output_begin_flush(agent, &session->outputs[i]);
    session_settle(agent, session);
    return true;
}
