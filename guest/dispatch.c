#include "dispatch.h"

#include <time.h>

#include "clock.h"
#include "configure.h"
#include "freeze.h"
#include "input.h"
#include "log.h"
#include "session.h"
#include "shutdown.h"

static void bad_body(struct agent *agent, const struct header *header)
{
    agent_refuse(agent, header, "bad_body", "the body is not what this type of frame carries");
}

static void on_configure(struct agent *agent, const struct header *header, const uint8_t *body)
{
    struct configure configure;
    if (agent->phase != PHASE_WAITING)
        agent_refuse(agent, header, "already_configured", "CONFIGURE comes once");
    else if (!decode_configure(body, header->length, &configure))
        agent_boot_failed(agent, "configure", 0, "the CONFIGURE message is malformed");
    else if (configure.version != WIRE_VERSION)
        agent_boot_failed(agent, "configure", 0, "the host chose a protocol version that was not offered");
    else
        configure_machine(agent, &configure);
}

static void on_identify(struct agent *agent, const struct header *header, const uint8_t *body)
{
    struct identity identity;
    if (!decode_identify(body, header->length, &identity))
        bad_body(agent, header);
    else if (agent->phase != PHASE_TEMPLATE && !(agent->phase == PHASE_SERVING && agent->freeze == FREEZE_STILL))
        agent_refuse(agent, header, "already_configured", "this machine knows who it is");
    else
        identify_machine(agent, &identity);
}

static void on_ping(struct agent *agent, const struct header *header, const uint8_t *body)
{
    struct message pong = {.length = header->length};
    if (header->length > PING_MAX) {
        bad_body(agent, header);
        return;
    }
    for (size_t i = 0; i < pong.length; i++)
        pong.bytes[i] = body[i];
    agent_send(agent, PONG, header->slot, 0, &pong);
}

static void on_shutdown(struct agent *agent, const struct header *header, const uint8_t *body)
{
    int64_t grace_ms, signal;
    if (!decode_shutdown(body, header->length, &grace_ms, &signal))
        bad_body(agent, header);
    else
        shutdown_begin(agent, (uint64_t)grace_ms * NS_PER_MS, (int)signal);
}

static void on_clock(struct agent *agent, const struct header *header, const uint8_t *body)
{
    int64_t time_ns;
    if (!decode_clock(body, header->length, &time_ns))
        bad_body(agent, header);
    else if (!set_wall_clock(agent, time_ns))
        log_error("setting the clock: %m");
}

static void on_session_frame(struct agent *agent, struct session *session, const struct header *header,
                             const uint8_t *body)
{
    int64_t number;
    uint16_t rows, cols;
    uint32_t credit;
    switch (header->type) {
    case STDIN:
        input_receive(agent, session, header, body);
        break;
    case SIGNAL:
        if (decode_signal(body, header->length, &number))
            session_signal(agent, session, (int)number);
        else
            bad_body(agent, header);
        break;
    case DEADLINE:
        if (decode_deadline(body, header->length, &number))
            session_set_deadline(session, number);
        else
            bad_body(agent, header);
        break;
    case KILL:
        if (header->length == 0)
            session_kill(agent, session, KILLED_REQUEST);
        else
            bad_body(agent, header);
        break;
    case RESIZE:
        if (decode_resize(body, header->length, &rows, &cols))
            session_resize(session, rows, cols);
        else
            bad_body(agent, header);
        break;
    case CREDIT:
        if (decode_credit(body, header->length, &credit))
            session_credit(agent, session, header, credit);
        else
            bad_body(agent, header);
        break;
    default:
        log_error("frame type 0x%02x has no handler", header->type);
    }
}

static void on_session(struct agent *agent, const struct header *header, const uint8_t *body)
{
    struct session *session = session_find(agent, header->session);
    if (session && session->slot != header->slot)
        agent_refuse(agent, header, "wrong_slot", "the session belongs to another client");
    else if (session)
        on_session_frame(agent, session, header, body);
    else if (header->session > agent->newest_session)
        agent_refuse(agent, header, "unknown_session", "this session was never opened");
    // A frame for a session that has ended was on its way when it ended.
}

void dispatch(struct agent *agent, const struct header *header, const uint8_t *body)
{
    if (agent->phase == PHASE_WAITING && header->type != CONFIGURE && header->type != PING &&
        header->type != SHUTDOWN) {
        agent_refuse(agent, header, "not_ready", "CONFIGURE comes first");
        return;
    }
    switch (header->type) {
    case CONFIGURE:
        on_configure(agent, header, body);
        break;
    case IDENTIFY:
        on_identify(agent, header, body);
        break;
    case PING:
        on_ping(agent, header, body);
        break;
    case SHUTDOWN:
        on_shutdown(agent, header, body);
        break;
    case CLOCK:
        on_clock(agent, header, body);
        break;
    case FREEZE:
        if (header->length == 0)
            freeze_begin(agent, header);
        else
            bad_body(agent, header);
        break;
    case THAW:
        if (header->length == 0)
            freeze_end(agent, header);
        else
            bad_body(agent, header);
        break;
    case CLIENT_GONE:
        if (header->length == 0)
            sessions_kill_slot(agent, header->slot);
        else
            bad_body(agent, header);
        break;
    case EXEC:
    case FS:
    case EMIT:
    case SUBSCRIBE:
        session_open(agent, header, body);
        break;
    default:
        on_session(agent, header, body);
    }
}
