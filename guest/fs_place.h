// Puts a file where its name says, whole or not at all, whatever was there, a folder excepted.
//
// What is not finished is removed: by place_abandon(), and when SIGTERM ends the helper.
#ifndef TRIO_SANDBOX_FS_PLACE_H
#define TRIO_SANDBOX_FS_PLACE_H

#include <stdbool.h>
#include <sys/types.h>

#include "fs_target.h"

struct fs_place {
    int fd; // the new file, mode 0600, open for writing
    int folder;
    const char *name;
    char made_as[FS_NAME_MAX + 1]; // the name that the file has until place_commit()
};

// A new file for `name`, which must stay valid. It has another name until it is whole if there is something of that
// name already, or if it is `hidden`. False: errno.
bool place_begin(struct fs_place *place, int folder, const char *name, bool hidden);

// Gives the file its name. False: errno, and it is gone.
bool place_commit(struct fs_place *place);

// Removes and closes the file; keeps errno.
void place_abandon(struct fs_place *place);

// The same for a symbolic link, a FIFO, a socket or a device, by the type bits of `mode`; `link` is where a link
// points.
bool place_node(int folder, const char *name, mode_t mode, dev_t device, const char *link);

// From now on SIGTERM ends this process with nothing unfinished left behind.
void place_handle_sigterm(void);

#endif
