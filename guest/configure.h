// From CONFIGURE to READY, and for the clones of a template from IDENTIFY to READY.
#ifndef TRIO_SANDBOX_CONFIGURE_H
#define TRIO_SANDBOX_CONFIGURE_H

#include "agent.h"

// Both answer READY, or do not return.
void configure_machine(struct agent *agent, const struct configure *configure); // then it serves, or is a template
void identify_machine(struct agent *agent, const struct identity *identity);    // a template, which then serves

bool set_wall_clock(struct agent *agent, int64_t time_ns); // false: errno

#endif
