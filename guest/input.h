// Standard input of the commands: buffered up to the session's window, written when the child takes it.
#ifndef TRIO_SANDBOX_INPUT_H
#define TRIO_SANDBOX_INPUT_H

#include "session.h"

bool input_open(struct agent *agent, struct session *session, int fd);
void input_receive(struct agent *agent, struct session *session, const struct header *header, const uint8_t *body);
void input_write(struct agent *agent, struct session *session); // the pipe may have room, or may be broken
void input_ready(struct agent *agent, struct session *session, uint32_t events); // of the loop
void input_close(struct agent *agent, struct session *session);

#endif
