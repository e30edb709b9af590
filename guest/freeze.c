#include "freeze.h"

#include "clock.h"
#include "log.h"
#include "session.h"

void freeze_begin(struct agent *agent, const struct header *header)
{
    if (agent->phase != PHASE_SERVING || agent->freeze != FREEZE_NOT)
        agent_refuse(agent, header, "wrong_phase", "only a machine that serves can hold still, and once at a time");
    else
        agent->freeze = FREEZE_FLUSH;
}

void freeze_end(struct agent *agent, const struct header *header)
{
    if (agent->freeze != FREEZE_STILL) {
        agent_refuse(agent, header, "wrong_phase", "THAW comes after FROZEN");
        return;
    }
    agent->freeze = FREEZE_NOT;
    if (agent->phase == PHASE_SERVING)
        agent->deadline = NEVER;
}

bool freeze_move(struct agent *agent)
{
    if (agent->freeze == FREEZE_FLUSH) {
        if (!outbox_send(&agent->outbox, agent->port.fd))
            return false;
        if (!outbox_is_empty(&agent->outbox))
            return true;
        agent_send(agent, FROZEN, 0, 0, NULL);
        agent->freeze = FREEZE_TELL;
    }
    if (agent->freeze == FREEZE_TELL) {
        // FROZEN alone, whatever has been queued behind it meanwhile: it is the last that is sent.
        if (!outbox_send_first(&agent->outbox, agent->port.fd))
            return false;
        if (agent->outbox.left)
            return true;
        agent->freeze = FREEZE_STILL;
        if (agent->phase == PHASE_SERVING)
            agent->deadline = clock_now() + SILENCE_MAX_S * NS_PER_S;
    }
    return true;
}

void freeze_become_copy(struct agent *agent)
{
    log_info("a copy of another machine");
    sessions_leave(agent);
    outbox_clear(&agent->outbox);
    agent->freeze = FREEZE_NOT;
}
