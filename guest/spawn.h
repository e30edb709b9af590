// Starts the child of a session: pipes, control group, process.
#ifndef TRIO_SANDBOX_SPAWN_H
#define TRIO_SANDBOX_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#include "agent.h"
#include "terminal.h"

// Where the child keeps the status pipe: right above the standard descriptors. Close-on-exec, blocking.
enum { STATUS_FD = 3 };

struct spawn_plan {
    bool wants_stdin;  // descriptor 0 is a pipe from the agent, else /dev/null
    bool wants_stderr; // descriptor 2 likewise; 1 and STATUS_FD always are pipes to the agent
    bool in_cgroup;    // the child begins in the session's own cgroup, where there are cgroups
    // The child's descriptors 0, 1 and 2 are this one's other end; with wants_stdin the agent writes to it. NULL: none.
    // Both ends belong to spawn() from then on.
    const struct terminal *terminal;
    // Runs in the child, which leads a session of its own, has no other descriptors than these, umask 022, default
    // signal actions and all signals blocked. The child is a copy of the agent: it must end by execve() or _exit(), and
    // what it allocates it may keep.
    void (*run)(const struct agent *agent, void *context) __attribute__((noreturn));
    void *context;
};

struct spawned {
    pid_t pid;
    int status;     // read end of the status pipe
    int input;      // write end of the standard input, -1 without one
    int outputs[2]; // read ends; -1 where there is none
    bool has_cgroup;
};

// All descriptors are non-blocking and close-on-exec. False: errno, and nothing is left.
bool spawn(struct agent *agent, uint32_t session, const struct spawn_plan *plan, struct spawned *spawned);

// For the child.
void unblock_signals(void);

#endif
