// The child of EXEC on its way to execve(), and what it says when it cannot go on.
#ifndef TRIO_SANDBOX_EXEC_CHILD_H
#define TRIO_SANDBOX_EXEC_CHILD_H

#include <stddef.h>

#include "agent.h"
#include "exec_request.h"

enum stage {
    STAGE_PREPARE,
    STAGE_TERMINAL,
    STAGE_USER_LOOKUP,
    STAGE_RLIMIT,
    STAGE_USER,
    STAGE_CWD,
    STAGE_EXEC,
    STAGE_INTERPRETER
};

// What the child writes into the status pipe when it cannot go on. Nothing comes when execve() succeeded.
struct spawn_failure {
    int stage;
    int error;
};

// `run` of a struct spawn_plan; the context is a struct exec_request.
_Noreturn void exec_child(const struct agent *agent, void *context);

// The `kind` of FAILED, and a sentence about it.
const char *spawn_failure_kind(const struct spawn_failure *failure);
void spawn_failure_text(const struct spawn_failure *failure, const struct exec_request *request, char *text,
                        size_t size);

#endif
