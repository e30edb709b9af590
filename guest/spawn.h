// Starts the process of a session, and learns from it how far it came.
#ifndef TRIO_SANDBOX_SPAWN_H
#define TRIO_SANDBOX_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#include "agent.h"
#include "exec_request.h"

enum stage { STAGE_PREPARE, STAGE_USER_LOOKUP, STAGE_RLIMIT, STAGE_USER, STAGE_CWD, STAGE_EXEC, STAGE_INTERPRETER };

// What the child writes into the status pipe when it cannot go on. Nothing comes when execve() succeeded.
struct spawn_failure {
    int stage;
    int error;
};

struct spawned {
    pid_t pid;
    int status; // read end of the status pipe
    int input;  // write end of the standard input, -1 without one
    int outputs[2];
    bool has_cgroup;
};

// Makes pipes, cgroup and child. All descriptors are non-blocking and close-on-exec. False: errno, and nothing is left.
bool spawn(struct agent *agent, uint32_t session, struct exec_request *request, struct spawned *spawned);

// The `kind` of FAILED, and a sentence about it.
const char *spawn_failure_kind(const struct spawn_failure *failure);
void spawn_failure_text(const struct spawn_failure *failure, const struct exec_request *request, char *text,
                        size_t size);

#endif
