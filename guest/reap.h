// Waits for every process that ended: those that we started, and orphans, which PID 1 adopts.
#ifndef TRIO_SANDBOX_REAP_H
#define TRIO_SANDBOX_REAP_H

#include "agent.h"

void reap_children(struct agent *agent);

#endif
