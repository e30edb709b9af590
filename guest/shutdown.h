// Stopping in order: SIGTERM or the signal that the host names, grace, SIGKILL, what is left is delivered. What follows
// (disks, power) is main.c's.
#ifndef TRIO_SANDBOX_SHUTDOWN_H
#define TRIO_SANDBOX_SHUTDOWN_H

#include "agent.h"

void shutdown_begin(struct agent *agent, uint64_t grace_ns, int signal); // a second call can only shorten the grace
void shutdown_hang_up(struct agent *agent);                              // the host end is gone
void shutdown_tick(struct agent *agent, uint64_t now);

#endif
