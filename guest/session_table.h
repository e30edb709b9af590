// All sessions: looked up by id while they are open, and by process while there is one.
#ifndef TRIO_SANDBOX_SESSION_TABLE_H
#define TRIO_SANDBOX_SESSION_TABLE_H

#include "session.h"

struct session *session_table_open(struct agent *agent, uint32_t id, uint16_t slot); // NULL: too many
void session_table_close(struct agent *agent, struct session *session);              // the id is not found any more
struct session *session_table_by_pid(struct agent *agent, pid_t pid);

#endif
