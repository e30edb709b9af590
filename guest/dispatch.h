// What each frame from the host does.
#ifndef TRIO_SANDBOX_DISPATCH_H
#define TRIO_SANDBOX_DISPATCH_H

#include "agent.h"

void dispatch(struct agent *agent, const struct header *header, const uint8_t *body);

#endif
