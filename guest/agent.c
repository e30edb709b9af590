#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "shutdown.h"

void agent_send_frame(struct agent *agent, enum lane lane, struct header header, const uint8_t *body)
{
    if (agent->hung_up || outbox_add(&agent->outbox, lane, header, body))
        return;
    log_error("the host does not read; stopping");
    shutdown_hang_up(agent);
}

void agent_send(struct agent *agent, enum frame_type type, uint16_t slot, uint32_t session, const struct message *body)
{
    struct header header = {.type = (uint8_t)type, .slot = slot, .session = session};
    header.length = body ? (uint32_t)body->length : 0;
    agent_send_frame(agent, LANE_CONTROL, header, body ? body->bytes : NULL);
}

void agent_refuse(struct agent *agent, const struct header *header, const char *code, const char *text)
{
    log_error("refused a frame of type 0x%02x, session %u: %s: %s", header->type, header->session, code, text);
    struct message body = encode_error(code, text);
    agent_send(agent, ERROR, header->slot, header->session, &body);
}

void agent_note_time(struct agent *agent, const char *name)
{
    if (agent->timing_count < TIMINGS_MAX)
        agent->timings[agent->timing_count++] = (struct timing){name, (clock_now() - agent->started) / 1000};
}

bool agent_flush(struct agent *agent, uint64_t deadline)
{
    while (!agent->hung_up && agent->port.fd >= 0 && outbox_send(&agent->outbox, agent->port.fd)) {
        if (outbox_is_empty(&agent->outbox))
            return true;
        uint64_t now = clock_now();
        if (now >= deadline)
            return false;
        struct pollfd port = {.fd = agent->port.fd, .events = POLLOUT};
        poll(&port, 1, (int)((deadline - now) / NS_PER_MS) + 1);
        if (port.revents & (POLLERR | POLLHUP))
            return false;
    }
    return false;
}

_Noreturn void agent_power_off(struct agent *agent, int status)
{
    if (agent->is_init) {
        sync();
        reboot(RB_POWER_OFF);
        log_error("power-off failed: %m");
        for (;;)
            pause();
    }
    _exit(status);
}

_Noreturn void agent_boot_failed(struct agent *agent, const char *stage, int error, const char *text)
{
    log_error("boot failed (%s): %s%s%s", stage, text, error ? ": " : "", error ? strerror(error) : "");
    struct message body = encode_boot_failed(stage, error, text);
    agent_send(agent, BOOT_FAILED, 0, 0, &body);
    agent_flush(agent, clock_now() + NS_PER_S);
    agent_power_off(agent, 1);
}

bool watch_open(struct agent *agent, struct watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    return epoll_ctl(agent->epoll, EPOLL_CTL_ADD, watch->fd, &event) == 0;
}

void watch_change(struct agent *agent, struct watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    if (epoll_ctl(agent->epoll, EPOLL_CTL_MOD, watch->fd, &event) != 0)
        log_error("epoll: %m");
}

void watch_close(struct agent *agent, struct watch *watch)
{
    if (watch->fd < 0)
        return;
    // close() alone would not do: a child that has not called execve() yet may share the open file.
    epoll_ctl(agent->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
    close(watch->fd);
    watch->fd = -1;
}
