// What the parts of the agent share. There is one agent, in one thread, with one epoll loop.
#ifndef TRIO_SANDBOX_AGENT_H
#define TRIO_SANDBOX_AGENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>

#include "frames.h"
#include "messages.h"
#include "outbox.h"

struct session;

// A descriptor in the loop. The loop hands back the watch, whose kind and owner say what to do.
enum watch_kind {
    WATCH_PORT,
    WATCH_SIGNALS,
    WATCH_STATUS,
    WATCH_INPUT,
    WATCH_OUTPUT,
    WATCH_DISCARD,
    WATCH_EMITTERS, // the set of all connections of programs that emit events
    WATCH_LISTENER, // one that listens
};

struct watch {
    enum watch_kind kind;
    int fd; // -1 when closed
    struct session *session;
};

enum phase {
    PHASE_WAITING,  // for CONFIGURE
    PHASE_TEMPLATE, // mounted and warm, without an identity: for IDENTIFY
    PHASE_SERVING,
    PHASE_TERM,  // stopping: processes have had SIGTERM
    PHASE_KILL,  // stopping: they have had SIGKILL
    PHASE_FLUSH, // stopping: what is left is delivered
    PHASE_DONE,
};

// Whether the agent holds still, so that its machine can be copied between two frames: see freeze.c.
enum freeze {
    FREEZE_NOT,
    FREEZE_FLUSH, // what waits for the port is sent first
    FREEZE_TELL,  // FROZEN is being sent
    FREEZE_STILL, // nothing is sent any more until THAW, or, in a copy, IDENTIFY
};

struct output_queue {
    struct output *first, *last;
};

enum { TIMINGS_MAX = 16, SESSION_BUCKETS = 256 };

struct agent {
    bool is_init; // PID 1 of a sandbox; otherwise a test drives it on some host
    enum phase phase;
    enum freeze freeze;
    uint64_t started;  // clock_now() at the start
    uint64_t deadline; // of the phase, or of holding still, or NEVER
    int epoll;
    struct watch port, signals;
    uint32_t port_interest; // epoll events asked for
    bool hung_up;           // the host end is gone: nothing is sent any more
    bool stream_broken;     // a bad header came: nothing is read any more
    struct parser parser;
    struct outbox outbox;

    struct session *sessions;                 // all, also those that are over and still hold something
    struct session *buckets[SESSION_BUCKETS]; // the open ones by id
    unsigned open_sessions;
    uint32_t newest_session; // the highest id that was ever opened
    size_t assembling;       // bytes of unfinished EXEC messages
    bool sweep;              // some session may be over
    bool childless;          // the last wait found no child at all

    struct output_queue ready;   // outputs that may have something to read, in turn
    struct output_queue resting; // those that gave all they had a moment ago, by when their rest is over

    int proc, cgroups;        // folders: /proc, and the one that holds the cgroups of sessions; -1 = none
    int terminals;            // terminal_device()
    struct rlimit open_files; // what children get back; the agent itself takes more
    struct timing timings[TIMINGS_MAX];
    size_t timing_count;
};

// agent.c
void agent_send(struct agent *agent, enum frame_type type, uint16_t slot, uint32_t session, const struct message *body);
void agent_send_frame(struct agent *agent, enum lane lane, struct header header, const uint8_t *body);
void agent_refuse(struct agent *agent, const struct header *header, const char *code, const char *text);
void agent_note_time(struct agent *agent, const char *name);
bool agent_flush(struct agent *agent, uint64_t deadline); // false: not all was sent
_Noreturn void agent_power_off(struct agent *agent, int status);
_Noreturn void agent_boot_failed(struct agent *agent, const char *stage, int error, const char *text);

// The loop: every descriptor that is watched is closed by watch_close, so that no event comes for what is gone.
bool watch_open(struct agent *agent, struct watch *watch, uint32_t events);
void watch_change(struct agent *agent, struct watch *watch, uint32_t events);
void watch_close(struct agent *agent, struct watch *watch);

#endif
