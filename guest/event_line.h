// The lines that programs in the sandbox say to the agent, and what may be in them. Text in, parts out.
#ifndef TRIO_SANDBOX_EVENT_LINE_H
#define TRIO_SANDBOX_EVENT_LINE_H

#include <stdbool.h>
#include <stddef.h>

#include "msgpack.h"
#include "wire.h"

// Of one request, its line feed not counted: the longest emit.
enum { EVENT_LINE_MAX = sizeof "emit  " - 1 + EVENT_NAME_MAX + EVENT_MAX };

struct event_request {
    enum { REQUEST_EMIT, REQUEST_LISTEN } kind;
    struct mp_text name; // empty in a `listen` to all names
    struct mp_text json; // of an `emit`, checked
    bool drop_oldest;    // of a `listen`
};

bool event_name_is_valid(struct mp_text name); // 1 to 128 letters, digits, '.', '_', '-'

// NULL, or what is wrong with the payload of an event.
const char *event_payload_problem(struct mp_text payload);

// Takes one line apart, its line feed not included. NULL, or what is wrong with it, for the program to read. The parts
// of *request lie in the line.
const char *event_request_parse(struct mp_text line, struct event_request *request);

#endif
