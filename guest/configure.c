#include "configure.h"

#include <errno.h>
#include <time.h>

#include "clock.h"
#include "identity.h"
#include "root.h"

bool set_wall_clock(struct agent *agent, int64_t time_ns)
{
    if (!agent->is_init)
        return true; // a test must not set the clock of its host
    struct timespec time = {time_ns / (int64_t)NS_PER_S, time_ns % (int64_t)NS_PER_S};
    return clock_settime(CLOCK_REALTIME, &time) == 0;
}

static void become_sandbox(struct agent *agent, const struct configure *configure)
{
    // Entropy before anything else: a clone shares the generator's state with its template until this.
    if (!identity_reseed(configure->entropy, configure->entropy_length))
        agent_boot_failed(agent, "entropy", errno, "the kernel did not take the entropy");
    if (!set_wall_clock(agent, configure->time_ns))
        agent_boot_failed(agent, "clock", errno, "the clock cannot be set");
    if (!identity_set_hostname(configure->hostname))
        agent_boot_failed(agent, "hostname", errno, "the host name cannot be set");
    agent_note_time(agent, "identity");
    const char *problem = root_enter(configure->base, configure->upper);
    if (problem)
        agent_boot_failed(agent, "mount", errno, problem);
    agent_note_time(agent, "root");
    identity_write_files(configure->hostname, configure->machine_id);
}

void configure_and_serve(struct agent *agent, const struct configure *configure)
{
    agent_note_time(agent, "configured");
    if (agent->is_init)
        become_sandbox(agent, configure);
    agent->phase = PHASE_SERVING;
    agent->deadline = NEVER;
    agent_note_time(agent, "ready");
    struct message body = encode_ready(agent->timings, agent->timing_count);
    agent_send(agent, READY, 0, 0, &body);
}
