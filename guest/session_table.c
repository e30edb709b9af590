#include "session_table.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "cgroup.h"
#include "clock.h"
#include "input.h"
#include "output.h"

static struct session **bucket(struct agent *agent, uint32_t id)
{
    return &agent->buckets[id % SESSION_BUCKETS];
}

struct session *session_find(struct agent *agent, uint32_t id)
{
    struct session *session = *bucket(agent, id);
    while (session && session->id != id)
        session = session->next_in_bucket;
    return session;
}

struct session *session_table_by_pid(struct agent *agent, pid_t pid)
{
    struct session *session = agent->sessions;
    while (session && session->pid != pid)
        session = session->next;
    return session;
}

struct session *session_table_open(struct agent *agent, uint32_t id, uint16_t slot)
{
    struct session *session = agent->open_sessions < SESSIONS_MAX ? malloc(sizeof *session) : NULL;
    if (!session)
        return NULL;
    *session = (struct session){
        .next = agent->sessions,
        .next_in_bucket = *bucket(agent, id),
        .id = id,
        .slot = slot,
        .state = SESSION_ASSEMBLING,
        .pid = -1,
        .status = {.fd = -1},
        .input = {.watch = {.fd = -1}, .window = WINDOW},
        .outputs = {{.watch = {.fd = -1}}, {.watch = {.fd = -1}}},
        .window = WINDOW,
        .credit = WINDOW,
        .timeout = NEVER,
        .deadline = NEVER,
        .settle_deadline = NEVER,
        .kill_deadline = NEVER,
    };
    agent->sessions = session;
    *bucket(agent, id) = session;
    agent->open_sessions++;
    return session;
}

void session_table_close(struct agent *agent, struct session *session)
{
    struct session **at = bucket(agent, session->id);
    while (*at && *at != session)
        at = &(*at)->next_in_bucket;
    if (*at) {
        *at = session->next_in_bucket;
        agent->open_sessions--;
    }
    agent->sweep = true;
}

void sessions_kill_slot(struct agent *agent, uint16_t slot)
{
    for (struct session *session = agent->sessions; session; session = session->next)
        if (session->state != SESSION_OVER && session->slot == slot)
            session_kill(agent, session, KILLED_ABANDONED);
}

void sessions_end_idle(struct agent *agent)
{
    for (struct session *session = agent->sessions; session; session = session->next)
        if (session->pid < 0 && (session->state == SESSION_ASSEMBLING || session->state == SESSION_RUNNING))
            session_kill(agent, session, KILLED_REQUEST);
}

void sessions_finish(struct agent *agent)
{
    for (struct session *session = agent->sessions; session; session = session->next) {
        if (session->state == SESSION_FLUSHING) {
            session->killed = KILLED_ABANDONED;
            session->impatient = true;
            session_settle(agent, session);
        }
    }
}

void sessions_tick(struct agent *agent, uint64_t now)
{
    for (struct session *session = agent->sessions; session; session = session->next) {
        if (now >= session->timeout) {
            session->timeout = NEVER;
            session->timed_out = true;
            session_kill(agent, session, KILLED_TIMEOUT);
        }
        if (now >= session->deadline) {
            session->deadline = NEVER;
            session_kill(agent, session, KILLED_REQUEST);
        }
        if (now >= session->kill_deadline) {
            session->kill_deadline = NEVER;
            kill(session->pid, SIGKILL);
        }
        if (now >= session->settle_deadline) {
            session->settle_deadline = NEVER;
            session->impatient = true;
            session_settle(agent, session);
        }
    }
}

uint64_t sessions_deadline(const struct agent *agent)
{
    uint64_t earliest = NEVER;
    for (const struct session *session = agent->sessions; session; session = session->next) {
        const uint64_t deadlines[] = {session->timeout, session->deadline, session->settle_deadline,
                                      session->kill_deadline};
        for (size_t i = 0; i < sizeof deadlines / sizeof *deadlines; i++)
            if (deadlines[i] < earliest)
                earliest = deadlines[i];
    }
    return earliest;
}

static bool is_gone(struct agent *agent, struct session *session)
{
    if (session->state != SESSION_OVER || session->pid > 0)
        return false;
    if (session->outputs[0].watch.fd >= 0 || session->outputs[1].watch.fd >= 0)
        return false;
    if (session->has_cgroup && cgroup_remove(agent->cgroups, session->id))
        session->has_cgroup = false;
    return !session->has_cgroup;
}

void sessions_sweep(struct agent *agent)
{
    if (!agent->sweep)
        return;
    agent->sweep = false;
    for (struct session **at = &agent->sessions; *at;) {
        struct session *session = *at;
        if (is_gone(agent, session)) {
            *at = session->next;
            free(session);
        } else {
            at = &session->next;
        }
    }
}

void sessions_leave(struct agent *agent)
{
    for (struct session *session = agent->sessions; session; session = session->next)
        if (session->state != SESSION_OVER)
            session_leave(agent, session);
}

void sessions_clear(struct agent *agent)
{
    for (struct session *session; (session = agent->sessions);) {
        agent->sessions = session->next;
        watch_close(agent, &session->status);
        input_close(agent, session);
        for (int i = 0; i < 2; i++)
            output_close(agent, &session->outputs[i]);
        if (session->state != SESSION_OVER && session->kind && session->kind->release)
            session->kind->release(agent, session);
        free(session->parts);
        free(session);
    }
}
