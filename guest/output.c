#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "terminal.h"

enum {
    DRIBBLE = 16 * 1024, // bytes: less than this for a wakeup is not worth it
    CRUMB = 8 * 1024,    // bytes of credit
};
#define REST (300 * NS_PER_MS / 1000)

bool output_open(struct agent *agent, struct session *session, int index, int fd)
{
    struct output *output = &session->outputs[index];
    if (fd < 0)
        return true;
    output->watch = (struct watch){.kind = WATCH_OUTPUT, .fd = fd, .session = session};
    output->type = index == 0 ? STDOUT : STDERR;
    return watch_open(agent, &output->watch, EPOLLIN | (output->terminal ? EPOLLET : EPOLLONESHOT));
}

static void enqueue(struct output_queue *queue, struct output *output)
{
    if (output->queue)
        return;
    output->queue = queue;
    output->next = NULL;
    if (queue->last)
        queue->last->next = output;
    else
        queue->first = output;
    queue->last = output;
}

static struct output *dequeue(struct output_queue *queue)
{
    struct output *output = queue->first;
    queue->first = output->next;
    if (!queue->first)
        queue->last = NULL;
    output->queue = NULL;
    return output;
}

static void unlink_output(struct output *output)
{
    if (!output->queue)
        return;
    struct output **at = &output->queue->first, *last = NULL;
    while (*at != output) {
        last = *at;
        at = &last->next;
    }
    *at = output->next;
    if (output->queue->last == output)
        output->queue->last = last;
    output->queue = NULL;
}

void output_ready(struct agent *agent, struct output *output)
{
    output->maybe_readable = true;
    if ((output->watch.fd < 0 && !output->produced) || output->watch.kind != WATCH_OUTPUT)
        return;
    enqueue(&agent->ready, output);
    if (output->watch.session->state == SESSION_FLUSHING) // perhaps the last holder just closed it
        session_settle(agent, output->watch.session);
}

void output_close(struct agent *agent, struct output *output)
{
    unlink_output(output);
    watch_close(agent, &output->watch);
    output->left = 0;
    agent->sweep = true;
}

// How much of this output may go into the outbox now. 0: not before credit comes or the process ends.
static size_t allowance(const struct session *session, const struct output *output, size_t room)
{
    if (session->state != SESSION_RUNNING && session->state != SESSION_FLUSHING)
        return 0;
    size_t most = session->credit < room ? session->credit : room;
    // The last crumbs of a window are not worth a frame: whoever consumes the rest gives more before long.
    if (session->state == SESSION_RUNNING && most < CRUMB && most < session->window / 8)
        return 0;
    if (session->state == SESSION_FLUSHING && most > output->left)
        most = output->left;
    return most;
}

static void produce_one(struct agent *agent, struct output *output, size_t most)
{
    static uint8_t bytes[BODY_MAX];
    struct session *session = output->watch.session;
    size_t count = session->kind->produce(session, bytes, most);
    output->maybe_readable = count == most;
    if (output->maybe_readable)
        enqueue(&agent->ready, output);
    if (count == 0)
        return;
    session->credit -= (uint32_t)count;
    session->spoke = true;
    struct header header = {.length = (uint32_t)count, .type = STDOUT, .slot = session->slot, .session = session->id};
    agent_send_frame(agent, LANE_BULK, header, bytes);
}

// What a reader would find now. Of a terminal that is known roughly, but it is known when there is nothing.
static size_t bytes_there(const struct output *output)
{
    struct pollfd end = {.fd = output->watch.fd, .events = POLLIN};
    if (output->terminal)
        return poll(&end, 1, 0) == 1 && end.revents & POLLIN ? TERMINAL_HOLDS : 0;
    int count = 0;
    return ioctl(output->watch.fd, FIONREAD, &count) == 0 && count > 0 ? (size_t)count : 0;
}

// A terminal that nobody holds may be opened again by its name, and to hang it up would be a signal to its session. So
// it ends with the process.
static bool may_come_back(const struct output *output)
{
    return output->terminal && output->watch.session->state != SESSION_FLUSHING;
}

static void taken(struct output *output, size_t count)
{
    struct session *session = output->watch.session;
    session->credit -= (uint32_t)count;
    session->spoke = true;
    if (session->state != SESSION_FLUSHING)
        return;
    output->left -= count;
    if (output->terminal && bytes_there(output) == 0)
        output->left = 0;
}

// A pipe that gave all it had is left alone for a moment, so that its writer fills it meanwhile: to be woken for each
// line of a program that writes many takes six times as long. The first output after a pause is not held back.
static void rest(struct agent *agent, struct output *output)
{
    output->dribbles = true;
    output->rests_until = clock_now() + REST;
    enqueue(&agent->resting, output);
}

static void read_one(struct agent *agent, struct output *output, size_t most)
{
    struct session *session = output->watch.session;
    struct header header = {.type = (uint8_t)output->type, .slot = session->slot, .session = session->id};
    ssize_t count = outbox_read_bulk(&agent->outbox, header, output->watch.fd, most);
    if (count > 0) {
        taken(output, (size_t)count);
        output->brought += (size_t)count;
        if ((size_t)count < most && (output->dribbles || output->brought < DRIBBLE) && !output->terminal &&
            session->state == SESSION_RUNNING)
            rest(agent, output);
        else
            enqueue(&agent->ready, output);
    } else if (count < 0 && errno == EINTR) {
        enqueue(&agent->ready, output);
    } else if (count < 0 && (errno == EAGAIN || (errno == EIO && may_come_back(output)))) {
        output->maybe_readable = false;
        output->left = 0;
        output->brought = 0;
        output->dribbles = false;
        if (!output->terminal && session->state == SESSION_RUNNING)
            watch_change(agent, &output->watch, EPOLLIN | EPOLLONESHOT);
    } else {
        if (count < 0 && errno != EIO)
            log_error("reading the output of session %u: %m", session->id);
        output_close(agent, output);
    }
    if (session->state == SESSION_FLUSHING)
        session_settle(agent, session);
}

void output_pump(struct agent *agent)
{
    size_t room;
    for (uint64_t now = clock_now(); agent->resting.first && agent->resting.first->rests_until <= now;)
        enqueue(&agent->ready, dequeue(&agent->resting));
    while (agent->ready.first && (room = outbox_bulk_room(&agent->outbox)) > 0) {
        struct output *output = dequeue(&agent->ready);
        size_t most = allowance(output->watch.session, output, room);
        if (most == 0)
            continue; // it comes back with credit
        if (output->produced)
            produce_one(agent, output, most);
        else
            read_one(agent, output, most);
    }
}

uint64_t output_deadline(const struct agent *agent)
{
    return agent->resting.first ? agent->resting.first->rests_until : NEVER;
}

void output_discard(struct agent *agent, struct output *output)
{
    unlink_output(output);
    output->produced = false;
    if (output->watch.fd < 0)
        return;
    output->left = 0;
    output->watch.kind = WATCH_DISCARD;
    watch_change(agent, &output->watch, EPOLLIN);
}

void output_discard_ready(struct agent *agent, struct output *output)
{
    static int nowhere = -1;
    if (nowhere < 0)
        nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    // splice() to /dev/null only forgets pages. Once per turn of the loop, so that a fast writer does not hold it up.
    ssize_t count = -1;
    if (!output->terminal)
        count = splice(output->watch.fd, NULL, nowhere, NULL, 1 << 20, SPLICE_F_NONBLOCK);
    if (output->terminal || (count < 0 && errno == EINVAL)) { // or /dev/null is something else in this sandbox
        char bytes[4096];
        count = read(output->watch.fd, bytes, sizeof bytes);
    }
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))
        output_close(agent, output);
}

void output_begin_flush(struct agent *agent, struct output *output)
{
    if (output->watch.fd < 0 || output->watch.kind != WATCH_OUTPUT)
        return;
    unlink_output(output);
    if (!output->terminal) // each change is of interest from here on: the last holder may close it
        watch_change(agent, &output->watch, EPOLLIN | EPOLLET);
    output->left = bytes_there(output);
    output->maybe_readable = true;
    if (output->left)
        enqueue(&agent->ready, output);
}

bool output_delivered(struct agent *agent, struct output *output, bool *held)
{
    if (output->watch.fd < 0)
        return true;
    if (output->left > 0)
        return false;
    struct pollfd end = {.fd = output->watch.fd, .events = POLLIN};
    if (poll(&end, 1, 0) == 1 && end.revents & POLLHUP) {
        // Nobody is left who could write, so what came after the reap is the end of the output, and is delivered too.
        output->left = output->watch.kind == WATCH_OUTPUT ? bytes_there(output) : 0;
        if (output->left == 0)
            output_close(agent, output);
        else
            enqueue(&agent->ready, output);
        return output->left == 0;
    }
    *held = true;
    return true;
}
