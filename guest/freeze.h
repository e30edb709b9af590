// Holding still, so that the machine can be copied while it runs: a copy has no half frame in its port, and neither has
// the original. The host asks by FREEZE and says nothing until it says THAW; to a copy it says IDENTIFY instead.
#ifndef TRIO_SANDBOX_FREEZE_H
#define TRIO_SANDBOX_FREEZE_H

#include "agent.h"

void freeze_begin(struct agent *agent, const struct header *header); // FREEZE
void freeze_end(struct agent *agent, const struct header *header);   // THAW

// Instead of moving output, while agent->freeze is not FREEZE_NOT. False: the port broke.
bool freeze_move(struct agent *agent);

// In a copy, before it is told who it is: the sessions were the original's, and so is what waits to be sent. Programs
// go on without whoever started them; what they write is discarded. The agent's own helpers end.
void freeze_become_copy(struct agent *agent);

#endif
