// Sessions that this agent cannot serve.
#include <errno.h>

#include "session.h"

static void refuse(struct agent *agent, struct session *session)
{
    session_fail(agent, session, "other", ENOSYS, "this agent does not do that");
}

void events_emit(struct agent *agent, struct session *session, const uint8_t *body, size_t length)
{
    (void)body, (void)length;
    refuse(agent, session);
}

void events_subscribe(struct agent *agent, struct session *session, const uint8_t *body, size_t length)
{
    (void)body, (void)length;
    refuse(agent, session);
}
