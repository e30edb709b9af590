// Standard output and error of the commands: read only while the session has credit and the outbox has room.
//
// A pipe is watched for one event at a time, and again only when it was found empty; a terminal edge-triggered. An
// output that may have more stands in one queue, and goes to its end after each read: that is the fairness between
// sessions. One that flows in small pieces rests in between.
#ifndef TRIO_SANDBOX_OUTPUT_H
#define TRIO_SANDBOX_OUTPUT_H

#include "session.h"

bool output_open(struct agent *agent, struct session *session, int index, int fd);
void output_ready(struct agent *agent, struct output *output); // something may be there, or credit came
void output_pump(struct agent *agent);               // from the queue into the outbox, as far as there is room
uint64_t output_deadline(const struct agent *agent); // when the next rest is over, or NEVER
void output_close(struct agent *agent, struct output *output);

// From now on what comes is thrown away, until nobody holds the other end; the holder never sees a broken pipe.
void output_discard(struct agent *agent, struct output *output);
void output_discard_ready(struct agent *agent, struct output *output);

// The process is reaped: from now on what the pipe holds at this moment is delivered, and no more.
void output_begin_flush(struct agent *agent, struct output *output);

// For a process that is gone. True: all that it left is delivered. *held: somebody still holds the other end.
bool output_delivered(struct agent *agent, struct output *output, bool *held);

#endif
