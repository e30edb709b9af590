// Events, and the queue of those that one listener has not taken yet. No I/O.
//
// An event is one piece of memory however many queues it stands in. A queue is bounded, and an event that does not fit
// costs another one its place, or itself: the listener is told how many were lost before the next that it gets.
#ifndef TRIO_SANDBOX_EVENT_QUEUE_H
#define TRIO_SANDBOX_EVENT_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "event_line.h"

enum {
    EVENTS_WAITING_MAX = 256 * 1024, // bytes of lines in one queue, and
    EVENT_OVERHEAD = 64,             // for each of them so many more: what it takes to hold it
    EVENT_PIECES = 32,               // of a queue's front, at most, that are looked at together
};

struct event {
    unsigned holders;
    size_t length;
    char line[]; // "NAME JSON\n"
};

struct event *event_create(struct mp_text name, struct mp_text json); // held by the caller; NULL: no memory
void event_release(struct event *event);

struct event_queue {
    char name[EVENT_NAME_MAX + 1]; // of the events that the listener wants; "": all
    bool drop_oldest;              // else the new ones are dropped
    struct event **events;         // a circle of `capacity`, a power of two
    size_t capacity, head, count;
    size_t cost;       // of all that wait
    size_t sent;       // bytes of the first event that are gone already: it is not dropped any more
    uint64_t dropped;  // events, not told yet
    uint64_t telling;  // so many of them are told by
    char notice[24];   // "! N\n",
    size_t notice_end; // so many bytes; 0 when there is nothing to tell
    size_t notice_sent;
};

struct event_queue event_queue_for(struct mp_text name, bool drop_oldest); // a valid name, or none
bool event_queue_wants(const struct event_queue *queue, struct mp_text name);

// False: this event was dropped, and counted.
bool event_queue_add(struct event_queue *queue, struct event *event);

bool event_queue_is_empty(const struct event_queue *queue);

// The bytes at the front, at most `most` of them, in at most EVENT_PIECES pieces; returns how many pieces. Valid until
// the next call.
int event_queue_peek(struct event_queue *queue, size_t most, struct iovec pieces[EVENT_PIECES]);
void event_queue_sent(struct event_queue *queue, size_t count); // so many of them are gone

void event_queue_clear(struct event_queue *queue);

#endif
