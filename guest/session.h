// A session is one command: from EXEC to EXITED or FAILED, and then until nothing of it is left.
//
//   ASSEMBLING  parts of EXEC are still to come
//   STARTING    the child exists and has not called execve() yet, as far as we know
//   RUNNING     STARTED is sent
//   FLUSHING    the process is reaped; what its pipes held then is being delivered
//   OVER        EXITED or FAILED is sent: the id is free of meaning; pipes that a background process holds are drained,
//               and the cgroup stays until it is empty
#ifndef TRIO_SANDBOX_SESSION_H
#define TRIO_SANDBOX_SESSION_H

#include "agent.h"
#include "exec_request.h"
#include "spawn.h"

enum session_state { SESSION_ASSEMBLING, SESSION_STARTING, SESSION_RUNNING, SESSION_FLUSHING, SESSION_OVER };

enum why_killed {
    KILLED_NOT,
    KILLED_TIMEOUT,   // its output is still delivered, however slowly the host takes it
    KILLED_REQUEST,   // output for which there is no credit for KILL_PATIENCE is dropped
    KILLED_ABANDONED, // nobody wants the output
};

struct output {
    struct watch watch;
    enum frame_type type; // STDOUT or STDERR
    bool maybe_readable;  // the last read did not end in EAGAIN
    bool queued;          // in the agent's list of ready outputs
    size_t left;          // while FLUSHING: bytes that are still to be delivered
    struct output *next;
};

struct input {
    struct watch watch;
    struct ring waiting; // bytes the child has not taken yet
    bool wanted;         // the command was started with a standard input
    bool ended;          // END came
    uint32_t owed;       // bytes taken or dropped for which credit was not given back yet
};

struct session {
    struct session *next, *next_in_bucket;
    uint32_t id;
    uint16_t slot;
    enum session_state state;
    uint8_t *parts; // of EXEC, joined
    size_t parts_length;
    struct exec_request *request; // until started
    pid_t pid;
    struct watch status;
    struct input input;
    struct output outputs[2];
    uint32_t credit;          // bytes of output the host will take
    uint64_t deadline;        // of the timeout, or NEVER
    uint64_t settle_deadline; // of a killed session that is reaped: how long to wait for what dies with it, or NEVER
    enum why_killed killed;
    bool impatient; // that time is over
    bool timed_out, has_cgroup;
    int exit_status;
    struct rusage usage;
};

struct session *session_find(struct agent *agent, uint32_t id); // an open one

void session_exec(struct agent *agent, const struct header *header, const uint8_t *body);
void session_signal(struct agent *agent, struct session *session, int signal);
void session_credit(struct agent *agent, struct session *session, const struct header *header, uint32_t credit);
void session_kill(struct agent *agent, struct session *session, enum why_killed why);
void session_status_ready(struct agent *agent, struct session *session);
bool session_reaped(struct agent *agent, pid_t pid, int status, const struct rusage *usage); // false: not a leader
void session_settle(struct agent *agent, struct session *session); // sends EXITED if all is delivered

// In session_table.c: what concerns them all.
void sessions_kill_slot(struct agent *agent, uint16_t slot);
void sessions_finish(struct agent *agent);             // EXITED for all that are reaped, delivered or not
void sessions_tick(struct agent *agent, uint64_t now); // timeouts
uint64_t sessions_deadline(const struct agent *agent);
void sessions_sweep(struct agent *agent); // forgets those of which nothing is left
void sessions_clear(struct agent *agent); // forgets all

#endif
