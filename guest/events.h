// Events between the host and the programs of the sandbox: the sessions EMIT and SUBSCRIBE, whose beginnings session.h
// names. What a program emits goes to the host's subscriptions, what the host emits to the programs that listen.
#ifndef TRIO_SANDBOX_EVENTS_H
#define TRIO_SANDBOX_EVENTS_H

#include "agent.h"
#include "event_line.h"

enum { SUBSCRIPTIONS_MAX = 128 };

// A program emitted this; both are checked. It is queued for every subscription that wants it, or counted there as
// dropped. False: no memory.
bool events_from_guest(struct agent *agent, struct mp_text name, struct mp_text json);

#endif
