// The helper process of one operation on files.
#ifndef TRIO_SANDBOX_FS_HELPER_H
#define TRIO_SANDBOX_FS_HELPER_H

#include "agent.h"

// The `run` of a spawn_plan, with a struct fs_request as its context: becomes the user, does what is asked, writes a
// struct fs_result to STATUS_FD.
_Noreturn void fs_help(const struct agent *agent, void *request);

#endif
