// A session is one thing that the host asked for: a command (EXEC), an operation on files (FS), an event to tell
// (EMIT), or events to hear of (SUBSCRIBE); from its first frame to EXITED, DONE or FAILED, and then until nothing of
// it is left.
//
//   ASSEMBLING  parts of the opening message are still to come
//   STARTING    the child exists and has not called execve() yet, as far as we know
//   RUNNING     a command: STARTED is sent; the others: from the beginning
//   FLUSHING    the process is reaped; what its pipes held then is being delivered
//   OVER        the last frame is sent: the id is free of meaning; pipes that a background process holds are drained,
//               and the cgroup stays until it is empty
//
// What differs between the kinds is in struct session_kind. A session that has no child is RUNNING until it is killed.
#ifndef TRIO_SANDBOX_SESSION_H
#define TRIO_SANDBOX_SESSION_H

#include "agent.h"
#include "done.h"
#include "spawn.h"

enum session_state { SESSION_ASSEMBLING, SESSION_STARTING, SESSION_RUNNING, SESSION_FLUSHING, SESSION_OVER };

enum why_killed {
    KILLED_NOT,
    KILLED_TIMEOUT,   // its output is still delivered, however slowly the host takes it
    KILLED_REQUEST,   // or its deadline came: output for which there is no credit for KILL_PATIENCE is dropped
    KILLED_ABANDONED, // nobody wants the output
};

struct output {
    struct watch watch;
    enum frame_type type;       // STDOUT or STDERR
    bool produced;              // by the session's kind, in memory: there is no descriptor
    bool terminal;              // the master of one
    bool maybe_readable;        // the last read did not end in EAGAIN
    struct output_queue *queue; // of the agent, that it stands in
    size_t brought;             // since it was last found empty
    bool dribbles;              // it brings little at a time, and rests in between
    uint64_t rests_until;       // in the queue of the resting
    size_t left;                // while FLUSHING: bytes that are still to be delivered
    struct output *next;
};

struct input {
    struct watch watch;
    struct ring waiting; // bytes the child has not taken yet
    uint32_t window;     // how many may be there at most
    bool terminal;       // the master of one
    bool wanted;         // the session was started with a standard input
    bool ended;          // END came
    bool awaits_room;    // the loop tells when the child has read
    uint32_t owed;       // bytes taken or dropped for which credit was not given back yet
};

struct session {
    struct session *next, *next_in_bucket;
    uint32_t id;
    uint16_t slot;
    enum frame_type opened_by;
    enum session_state state;
    uint8_t *parts; // of the opening message, joined
    size_t parts_length;
    const struct session_kind *kind; // from the whole opening message on
    void *work;                      // what its kind keeps for it; released by the kind
    pid_t pid;                       // of the child; -1: there is none, or it is reaped
    struct watch status;             // what the child has to say to the agent itself
    struct input input;
    struct output outputs[2];
    uint32_t window, credit;  // bytes of output the host will take: at most, and now
    bool spoke;               // output was queued for the host
    uint64_t timeout;         // of the process, or NEVER
    uint64_t deadline;        // of the session, whatever it is at, or NEVER
    uint64_t settle_deadline; // of a killed session that is reaped: how long to wait for what dies with it, or NEVER
    uint64_t kill_deadline;   // of a child that was asked to end: when it has to, or NEVER
    enum why_killed killed;
    bool impatient; // that time is over
    bool timed_out, has_cgroup;
    int exit_status;
    struct rusage usage;
};

// What a kind of session does at the turns of its life. All but `kill` may be NULL.
struct session_kind {
    bool is_helper; // its child is the agent's own code, and listens to SIGTERM and to no other signal

    // The status pipe can be read, or has come to its end; called at the reap too, when all is in it that ever will.
    // Closes it with watch_close() at the end. Non-blocking.
    void (*status_ready)(struct agent *agent, struct session *session);

    // End it: the child dies soon, and `finished` follows; without a child, the session ends in here. Called again when
    // it is asked for again, also while FLUSHING.
    void (*kill)(struct agent *agent, struct session *session);

    // The child is reaped (session->exit_status, ->usage) and its output delivered, or given up after a kill. Ends the
    // session. `held`: a process that is left holds the output.
    void (*finished)(struct agent *agent, struct session *session, bool held);

    // A signal that the host asks for.
    void (*signal)(struct agent *agent, struct session *session, int signal);

    // For a session without pipes (session_produce()): puts at most `most` bytes of its STDOUT into `bytes` and returns
    // how many. Fewer: it is not called again before output_ready(agent, &session->outputs[0]).
    size_t (*produce)(struct session *session, uint8_t *bytes, size_t most);

    // The session is over: frees `work`, and forgets the session, which is freed later.
    void (*release)(struct agent *agent, struct session *session);
};

struct session *session_find(struct agent *agent, uint32_t id); // an open one

// From the host.
void session_open(struct agent *agent, const struct header *header, const uint8_t *body); // EXEC, FS, EMIT, SUBSCRIBE
void session_signal(struct agent *agent, struct session *session, int signal);
void session_resize(struct session *session, uint16_t rows, uint16_t cols);
void session_credit(struct agent *agent, struct session *session, const struct header *header, uint32_t credit);
void session_kill(struct agent *agent, struct session *session, enum why_killed why);

// From the loop.
void session_status_ready(struct agent *agent, struct session *session);
bool session_reaped(struct agent *agent, pid_t pid, int status, const struct rusage *usage); // false: not a leader
void session_settle(struct agent *agent, struct session *session); // finishes it if all is delivered

// How each kind begins, with its whole opening message, which is gone after the call: in exec_session.c, fs_session.c
// and events.c. They set `kind` (and `work`), then either start a child or produce, or fail at once.
void exec_start(struct agent *agent, struct session *session, const uint8_t *body, size_t length);
void fs_start(struct agent *agent, struct session *session, const uint8_t *body, size_t length);
void events_emit(struct agent *agent, struct session *session, const uint8_t *body, size_t length);
void events_subscribe(struct agent *agent, struct session *session, const uint8_t *body, size_t length);

// For the kinds. Windows in bytes, 1 to WINDOW each; to be set before anything else. A deadline is in milliseconds from
// now, 0 for none; it may be set at any time.
void session_set_windows(struct session *session, uint32_t window, uint32_t stdin_window);
void session_set_deadline(struct session *session, int64_t milliseconds);
bool session_launch(struct agent *agent, struct session *session, const struct spawn_plan *plan,
                    enum session_state state);   // a child; STARTING or RUNNING. False: errno, nothing happened
void session_produce(struct session *session);   // RUNNING without a child; `produce` is asked for STDOUT
void session_terminate(struct session *session); // SIGTERM to the child, SIGKILL a second later
void session_ready(struct agent *agent, struct session *session); // what waited for RUNNING goes on

// Ends a session of which the host knows nothing: its program goes on, a helper is killed.
void session_leave(struct agent *agent, struct session *session);

// The last frame. FAILED goes at once; the others follow the session's output. The session is OVER after it.
void session_fail(struct agent *agent, struct session *session, const char *kind, int error, const char *text);
void session_finish(struct agent *agent, struct session *session, enum frame_type type, const uint8_t *body,
                    size_t length);
void session_finish_done(struct agent *agent, struct session *session, const struct done *done);

// In session_table.c: what concerns them all.
void sessions_kill_slot(struct agent *agent, uint16_t slot);
void sessions_end_idle(struct agent *agent);           // those that wait for no process
void sessions_finish(struct agent *agent);             // the last frame for all that are reaped, delivered or not
void sessions_tick(struct agent *agent, uint64_t now); // timeouts and deadlines
uint64_t sessions_deadline(const struct agent *agent);
void sessions_sweep(struct agent *agent); // forgets those of which nothing is left
void sessions_leave(struct agent *agent); // they are another machine's: ends them all, without a word
void sessions_clear(struct agent *agent); // forgets all

#endif
