// Paths that stay within a root: what the key `root` of an FS message asks for.
//
// The path is looked up as if the root was "/", symbolic links and ".." included, so that nothing leads out of it; no
// link of /proc is followed; and nothing that is mounted in it is entered, which is EXDEV. The kernel sees to all of it
// in one step, so nobody who changes the tree meanwhile can lead it elsewhere.
#ifndef TRIO_SANDBOX_FS_WITHIN_H
#define TRIO_SANDBOX_FS_WITHIN_H

#include "fs_request.h"
#include "fs_target.h"

// The folder that the request's path is in, and the name in it, which is not followed. With `make`, folders that are
// missing are made, 0755. False: errno.
bool within_target(struct fs_target *target, const struct fs_request *request, bool make);

// Opens what the path names, through a link that stands there too. -1: errno.
int within_open(const struct fs_request *request, int flags);

#endif
