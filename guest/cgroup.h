// One control group per session, so that a kill reaches descendants that left the process group too.
#ifndef TRIO_SANDBOX_CGROUP_H
#define TRIO_SANDBOX_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

// Makes the folder for sessions in a mounted cgroup2 hierarchy and opens it. -1: errno.
int cgroup_open_root(const char *mount_point);

// Makes the group of a session and opens its folder, for clone3(). -1: errno.
int cgroup_create(int root, uint32_t session);

bool cgroup_kill(int root, uint32_t session);

// Removes the group if no process is in it. True when it is gone.
bool cgroup_remove(int root, uint32_t session);

#endif
