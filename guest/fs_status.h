// What the kernel knows of a file.
#ifndef TRIO_SANDBOX_FS_STATUS_H
#define TRIO_SANDBOX_FS_STATUS_H

#include <stdbool.h>
#include <time.h>

#include "done.h"

// Of `name` in `folder`, or of `folder` itself where `name` is "". False: errno.
bool fs_status(int folder, const char *name, bool follow, struct file_status *status);

struct timespec fs_time(int64_t ns); // since the epoch, also before it

#endif
