// Frames that wait for the port. Control frames overtake bulk ones, but a frame once begun is sent whole.
#ifndef TRIO_SANDBOX_OUTBOX_H
#define TRIO_SANDBOX_OUTBOX_H

#include <stdbool.h>
#include <sys/types.h>

#include "ring.h"
#include "wire.h"

enum {
    BULK_BODY_MAX = BODY_MAX - HEADER_SIZE, // the port takes 32 KiB at a time: a whole frame is two of them, not three
    CONTROL_PAUSE = 64 * 1024,     // with so much control waiting, the agent takes no further frames from the host
    CONTROL_MAX = 4 * 1024 * 1024, // never reached by a host that reads
    BULK_HARD_MAX = BULK_MAX + CONTROL_MAX, // bulk and the EXITED frames behind it
};

enum lane {
    LANE_CONTROL,
    LANE_BULK, // output, and what must not overtake it: EXITED
};

struct outbox {
    struct ring lanes[2];
    enum lane lane; // of the frame that is being sent
    size_t left;    // bytes of it that are still to be sent; 0 between frames
};

// False when the queue is full: then the host does not read any more.
bool outbox_add(struct outbox *outbox, enum lane lane, struct header header, const void *body);

// How large a bulk body may be queued now: BULK_BODY_MAX or 0. Small remainders are not used, since small frames cost
// more.
size_t outbox_bulk_room(const struct outbox *outbox);

// Reads up to `most` bytes (at most outbox_bulk_room()) from `fd` into a bulk frame. Returns what read() would.
ssize_t outbox_read_bulk(struct outbox *outbox, struct header header, int fd, size_t most);

bool outbox_is_empty(const struct outbox *outbox);

// Writes until all is sent or the descriptor would block. False on any other error (errno).
bool outbox_send(struct outbox *outbox, int fd);

// The same for what comes first alone: all control that waits now, or one frame of bulk. It is sent when `left` is 0.
bool outbox_send_first(struct outbox *outbox, int fd);

void outbox_clear(struct outbox *outbox);

#endif
