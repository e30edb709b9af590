// `msb-event`: events for programs that speak no sockets. It is this binary under that name, in the sandbox.
#ifndef TRIO_SANDBOX_EVENT_COMMAND_H
#define TRIO_SANDBOX_EVENT_COMMAND_H

#include <stdbool.h>

#define EVENTS_FOLDER ".msb" // in the root
#define EVENTS_SOCKET "/" EVENTS_FOLDER "/events.sock"
#define EVENTS_PROGRAM "msb-event"

bool event_command_is(const char *name); // argv[0]

// Returns the exit status: 0; 1 after an error, which is told on standard error; 2 for arguments that make no sense.
int event_command(int argc, char **argv);

#endif
