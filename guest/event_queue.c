#include "event_queue.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CAPACITY_MIN = 16 };

struct event *event_create(struct mp_text name, struct mp_text json)
{
    size_t length = name.length + 1 + json.length + 1;
    struct event *event = malloc(sizeof *event + length);
    if (!event)
        return NULL;
    *event = (struct event){.holders = 1, .length = length};
    memcpy(event->line, name.bytes, name.length);
    event->line[name.length] = ' ';
    memcpy(event->line + name.length + 1, json.bytes, json.length);
    event->line[length - 1] = '\n';
    return event;
}

void event_release(struct event *event)
{
    if (--event->holders == 0)
        free(event);
}

struct event_queue event_queue_for(struct mp_text name, bool drop_oldest)
{
    struct event_queue queue = {.drop_oldest = drop_oldest};
    memcpy(queue.name, name.bytes ? name.bytes : "", name.length);
    return queue;
}

bool event_queue_wants(const struct event_queue *queue, struct mp_text name)
{
    return !*queue->name || (strlen(queue->name) == name.length && memcmp(queue->name, name.bytes, name.length) == 0);
}

static struct event **place(const struct event_queue *queue, size_t index)
{
    return &queue->events[(queue->head + index) & (queue->capacity - 1)];
}

static size_t cost_of(const struct event *event)
{
    return event->length + EVENT_OVERHEAD;
}

static void forget_first(struct event_queue *queue)
{
    struct event *event = *place(queue, 0);
    queue->cost -= cost_of(event);
    queue->head++;
    queue->count--;
    event_release(event);
}

static void drop_oldest(struct event_queue *queue)
{
    if (queue->sent) { // the first is on its way: the second goes, and the first takes its place
        struct event *first = *place(queue, 0);
        *place(queue, 0) = *place(queue, 1);
        *place(queue, 1) = first;
    }
    forget_first(queue);
    queue->dropped++;
}

static bool grow(struct event_queue *queue)
{
    if (queue->count < queue->capacity)
        return true;
    size_t capacity = queue->capacity ? 2 * queue->capacity : CAPACITY_MIN;
    struct event **events = malloc(capacity * sizeof *events);
    if (!events)
        return false;
    for (size_t i = 0; i < queue->count; i++)
        events[i] = *place(queue, i);
    free(queue->events);
    queue->events = events;
    queue->capacity = capacity;
    queue->head = 0;
    return true;
}

bool event_queue_add(struct event_queue *queue, struct event *event)
{
    size_t cost = cost_of(event), droppable = queue->sent ? 1 : 0;
    while (queue->drop_oldest && queue->count > droppable && queue->cost + cost > EVENTS_WAITING_MAX)
        drop_oldest(queue);
    if (queue->cost + cost > EVENTS_WAITING_MAX || !grow(queue)) {
        queue->dropped++;
        return false;
    }
    *place(queue, queue->count++) = event;
    queue->cost += cost;
    event->holders++;
    return true;
}

bool event_queue_is_empty(const struct event_queue *queue)
{
    return queue->count == 0 && queue->notice_sent == queue->notice_end;
}

// Between two lines the notice is written anew, for as long as nothing of it is gone: more may have been dropped.
static void write_notice(struct event_queue *queue)
{
    if (queue->sent || queue->notice_sent)
        return;
    queue->telling = queue->dropped;
    queue->notice_end = 0;
    if (queue->dropped)
        queue->notice_end = (size_t)snprintf(queue->notice, sizeof queue->notice, "! %" PRIu64 "\n", queue->dropped);
}

int event_queue_peek(struct event_queue *queue, size_t most, struct iovec pieces[EVENT_PIECES])
{
    int count = 0;
    write_notice(queue);
    // What was dropped since something was begun is told right behind it.
    bool more_to_tell = queue->dropped > (queue->notice_end && !queue->notice_sent ? queue->telling : 0);
    int limit = more_to_tell ? 1 : EVENT_PIECES;
    if (queue->notice_sent < queue->notice_end)
        pieces[count++] = (struct iovec){queue->notice + queue->notice_sent, queue->notice_end - queue->notice_sent};
    for (size_t i = 0, skip = queue->sent; i < queue->count && count < limit; i++, skip = 0) {
        struct event *event = *place(queue, i);
        pieces[count++] = (struct iovec){event->line + skip, event->length - skip};
    }
    for (int i = 0; i < count; i++) {
        if (pieces[i].iov_len >= most) {
            pieces[i].iov_len = most;
            return most ? i + 1 : i;
        }
        most -= pieces[i].iov_len;
    }
    return count;
}

static size_t notice_gone(struct event_queue *queue, size_t count)
{
    size_t left = queue->notice_end - queue->notice_sent;
    if (count == 0 || left == 0)
        return count;
    if (queue->notice_sent == 0)
        queue->dropped -= queue->telling;
    if (count < left) {
        queue->notice_sent += count;
        return 0;
    }
    queue->notice_sent = queue->notice_end = 0;
    return count - left;
}

void event_queue_sent(struct event_queue *queue, size_t count)
{
    count = notice_gone(queue, count);
    while (count > 0) {
        size_t left = (*place(queue, 0))->length - queue->sent;
        if (count < left) {
            queue->sent += count;
            return;
        }
        count -= left;
        queue->sent = 0;
        forget_first(queue);
    }
}

void event_queue_clear(struct event_queue *queue)
{
    while (queue->count)
        forget_first(queue);
    free(queue->events);
    queue->events = NULL;
    queue->capacity = queue->sent = 0;
}
