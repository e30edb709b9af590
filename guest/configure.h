// From CONFIGURE to READY: identity first, then the root, then the gate opens.
#ifndef TRIO_SANDBOX_CONFIGURE_H
#define TRIO_SANDBOX_CONFIGURE_H

#include "agent.h"

// Answers READY, or does not return.
void configure_and_serve(struct agent *agent, const struct configure *configure);

bool set_wall_clock(struct agent *agent, int64_t time_ns); // false: errno

#endif
