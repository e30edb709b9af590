// The socket at which programs of the sandbox send and receive events.
//
// A connection is an emitter until it says `listen`. Emitters are in an epoll set of their own, and have a budget
// together: when that is spent, the set is not looked at until the next 20 ms begin, so they wait and nobody else does.
// Each connection in turn has one line taken. The agent answers a line before it takes the next of that connection, so
// one that does not read is not read either.
#ifndef TRIO_SANDBOX_EVENT_SERVER_H
#define TRIO_SANDBOX_EVENT_SERVER_H

#include "agent.h"
#include "event_queue.h"

enum {
    EVENT_CONNECTIONS_MAX = 64,
    EVENTS_IN_TURN = 64,              // lines (and connections) that are taken from all emitters in EVENT_TURN_MS,
    EVENT_BYTES_IN_TURN = 128 * 1024, // or bytes, whichever is reached first; the last piece may exceed it
    EVENT_TURN_MS = 20,
};

// Listens at `path`, for everybody. False: errno.
bool event_server_open(struct agent *agent, const char *path);
void event_server_close(struct agent *agent); // with all its connections

// From the loop: the set of emitters, or a listener, has something; then what can be done is done, in small pieces.
void event_server_ready(struct agent *agent);
void event_listener_ready(struct agent *agent, struct watch *watch, uint32_t events);
bool event_server_pump(struct agent *agent, uint64_t now); // true: there is more to do at once
uint64_t event_server_deadline(void);                      // when the emitters have their next turn, or NEVER

// Queues an event for all connections that listen to its name; returns for how many.
size_t event_server_tell(struct mp_text name, struct event *event);

#endif
