#include "input.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "terminal.h"

// A child that keeps up should not wake the agent at each of its reads, so room is of interest only while bytes wait.
// That nobody reads is told in any case; of a terminal once only, since it may be opened again.
static uint32_t interest(const struct input *input, bool awaits_room)
{
    return (uint32_t)(awaits_room ? EPOLLOUT : 0) | (uint32_t)(input->terminal ? EPOLLET : 0);
}

bool input_open(struct agent *agent, struct session *session, int fd)
{
    session->input.watch = (struct watch){.kind = WATCH_INPUT, .fd = fd, .session = session};
    session->input.wanted = fd >= 0;
    return fd < 0 || watch_open(agent, &session->input.watch, interest(&session->input, false));
}

static void await_room(struct agent *agent, struct input *input, bool wanted)
{
    if (input->awaits_room == wanted)
        return;
    input->awaits_room = wanted;
    watch_change(agent, &input->watch, interest(input, wanted));
}

static void give_credit(struct agent *agent, struct session *session, size_t count)
{
    session->input.owed += (uint32_t)count;
    // Back in lots of a quarter: the host has the rest while one travels.
    if (session->input.owed == 0 || session->input.owed < session->input.window / 4)
        return;
    struct message body = encode_credit(session->input.owed);
    agent_send(agent, CREDIT, session->slot, session->id, &body);
    session->input.owed = 0;
}

// Straight from the frame into the pipe, if nothing waits before it: most input is copied once less. Returns how much
// the child took; an error is left to input_write(), which meets it again.
static size_t write_through(const struct session *session, const uint8_t *body, size_t length)
{
    if (session->input.waiting.size || session->state < SESSION_RUNNING)
        return 0;
    ssize_t count = write(session->input.watch.fd, body, length);
    return count > 0 ? (size_t)count : 0;
}

void input_receive(struct agent *agent, struct session *session, const struct header *header, const uint8_t *body)
{
    struct input *input = &session->input;
    if (!input->wanted || input->ended) {
        agent_refuse(agent, header, input->ended ? "stdin_ended" : "no_stdin", "this session takes no standard input");
        return;
    }
    if (header->length > input->window - input->waiting.size - input->owed) {
        agent_refuse(agent, header, "overdraw", "more standard input than there was credit for");
        session_kill(agent, session, KILLED_REQUEST);
        return;
    }
    input->ended = header->flags & FLAG_END;
    if (input->watch.fd < 0) { // the child closed it: what was on its way is dropped
        give_credit(agent, session, header->length);
        return;
    }
    bool had_to_wait = input->waiting.size > 0 && !input->terminal;
    size_t taken = write_through(session, body, header->length);
    give_credit(agent, session, taken);
    if (!ring_reserve(&input->waiting, header->length - taken, input->window)) {
        agent_refuse(agent, header, "out_of_memory", "no memory for standard input");
        session_kill(agent, session, KILLED_REQUEST);
        return;
    }
    ring_put(&input->waiting, body + taken, header->length - taken);
    if (!had_to_wait) // else there will be an event
        input_write(agent, session);
}

static void broken(struct agent *agent, struct session *session, int error)
{
    // Why nobody reads may be there already. A session that never started says FAILED alone.
    if (session->status.fd >= 0)
        session_status_ready(agent, session);
    if (session->input.watch.fd < 0)
        return; // that was the end of it
    struct message body = encode_stdin_closed(error);
    size_t dropped = session->input.waiting.size;
    if (session->input.terminal) { // nobody holds it now, but it may be opened again by its name
        ring_drop(&session->input.waiting, dropped);
        give_credit(agent, session, dropped);
        return;
    }
    input_close(agent, session);
    if (session->state == SESSION_RUNNING)
        agent_send(agent, STDIN_CLOSED, session->slot, session->id, &body);
    give_credit(agent, session, dropped);
}

// False: not typed yet, there is no room.
static bool type_end(int master)
{
    int character = terminal_end_character(master);
    uint8_t byte = (uint8_t)character;
    return character < 0 || write(master, &byte, 1) == 1 || errno != EAGAIN;
}

void input_write(struct agent *agent, struct session *session)
{
    struct input *input = &session->input;
    if (input->watch.fd < 0 || session->state < SESSION_RUNNING)
        return; // before the start is known nothing is written: it may yet become FAILED
    while (input->waiting.size) {
        struct iovec pieces[2];
        ssize_t count = writev(input->watch.fd, pieces, ring_peek(&input->waiting, 0, input->waiting.size, pieces));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0) {
            if (errno == EAGAIN)
                await_room(agent, input, true);
            else
                broken(agent, session, errno);
            return;
        }
        ring_drop(&input->waiting, (size_t)count);
        give_credit(agent, session, (size_t)count);
    }
    bool end_is_due = input->ended && input->terminal && !type_end(input->watch.fd);
    await_room(agent, input, end_is_due);
    if (input->ended && !end_is_due)
        input_close(agent, session);
}

void input_ready(struct agent *agent, struct session *session, uint32_t events)
{
    if (events & EPOLLERR && !session->input.waiting.size && !session->input.terminal)
        broken(agent, session, EPIPE);
    else
        input_write(agent, session);
}

void input_close(struct agent *agent, struct session *session)
{
    watch_close(agent, &session->input.watch);
    ring_free(&session->input.waiting);
}
