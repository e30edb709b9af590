#include "configure.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

#include "clock.h"
#include "event_command.h"
#include "event_server.h"
#include "freeze.h"
#include "identity.h"
#include "log.h"
#include "root.h"
#include "warm.h"

bool set_wall_clock(struct agent *agent, int64_t time_ns)
{
    if (!agent->is_init)
        return true; // a test must not set the clock of its host
    struct timespec time = {time_ns / (int64_t)NS_PER_S, time_ns % (int64_t)NS_PER_S};
    return clock_settime(CLOCK_REALTIME, &time) == 0;
}

static void set_randomness_and_clock(struct agent *agent, const struct identity *identity)
{
    // Entropy before anything else: a clone shares the generator's state with its template until this.
    if (!identity_reseed(identity->entropy, identity->entropy_length))
        agent_boot_failed(agent, "entropy", errno, "the kernel did not take the entropy");
    if (!set_wall_clock(agent, identity->time_ns))
        agent_boot_failed(agent, "clock", errno, "the clock cannot be set");
}

static void set_name(struct agent *agent, const struct identity *identity)
{
    if (!identity_set_hostname(identity->hostname))
        agent_boot_failed(agent, "hostname", errno, "the host name cannot be set");
    agent_note_time(agent, "identity");
}

static void enter_root(struct agent *agent, const struct configure *configure)
{
    const char *problem = configure->disk[0] ? root_enter_disk(configure->disk, configure->fstype)
                                             : root_enter(configure->base, configure->upper);
    if (problem)
        agent_boot_failed(agent, "mount", errno, problem);
    // In a template too: its clones have the socket from their beginning.
    if (root_has_events() && !event_server_open(agent, EVENTS_SOCKET))
        log_error("there will be no events: %m");
    agent_note_time(agent, "root");
}

static void warm_up(struct agent *agent, const struct configure *configure)
{
    struct warm_result warmed = warm_files("/", configure->warm, configure->warm_count);
    log_info("read %zu files, %zu KiB", warmed.files, warmed.bytes / 1024);
    agent_note_time(agent, "warm");
    if (!root_sync())
        agent_boot_failed(agent, "sync", errno, "the upper cannot be written");
    agent_note_time(agent, "synced");
}

static void say_ready(struct agent *agent)
{
    agent_note_time(agent, "ready");
    struct message body = encode_ready(agent->timings, agent->timing_count);
    agent_send(agent, READY, 0, 0, &body);
}

// A template is saved once the host has its READY, and what it holds then, every clone holds: so the agent has no byte
// of a further frame, and no byte to send but that READY. The host keeps to it by sending nothing meanwhile.
static bool conversation_is_over(const struct agent *agent)
{
    struct pollfd port = {.fd = agent->port.fd, .events = POLLIN};
    return parser_is_empty(&agent->parser) && outbox_is_empty(&agent->outbox) && poll(&port, 1, 0) == 0;
}

static void become_template(struct agent *agent, const struct configure *configure)
{
    if (agent->is_init) {
        set_randomness_and_clock(agent, &configure->identity);
        enter_root(agent, configure);
        identity_prepare_files();
        warm_up(agent, configure);
    }
    if (!conversation_is_over(agent))
        agent_boot_failed(agent, "template", 0, "the host sent more, or hung up, before the template was ready");
    agent->phase = PHASE_TEMPLATE;
    say_ready(agent);
    agent->deadline = clock_now() + SILENCE_MAX_S * NS_PER_S;
}

static void serve(struct agent *agent, const struct identity *identity)
{
    agent->phase = PHASE_SERVING;
    agent->deadline = NEVER;
    say_ready(agent);
    if (!agent->is_init)
        return;
    // While READY travels: the files are there before the next frame is looked at.
    agent_flush(agent, clock_now() + NS_PER_S);
    identity_write_files(identity->hostname, identity->machine_id);
}

void configure_machine(struct agent *agent, const struct configure *configure)
{
    agent_note_time(agent, "configured");
    if (configure->template) {
        become_template(agent, configure);
        return;
    }
    if (agent->is_init) {
        set_randomness_and_clock(agent, &configure->identity);
        set_name(agent, &configure->identity);
        enter_root(agent, configure);
    }
    serve(agent, &configure->identity);
}

void identify_machine(struct agent *agent, const struct identity *identity)
{
    if (agent->freeze == FREEZE_STILL)
        freeze_become_copy(agent);
    agent->timing_count = 0; // those of the template were told by its own READY
    agent->newest_session = 0;
    agent_note_time(agent, "identify");
    if (agent->is_init) {
        set_randomness_and_clock(agent, identity);
        set_name(agent, identity);
    }
    serve(agent, identity);
}
