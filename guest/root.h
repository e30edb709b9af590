// The sandbox's root: a read-only squashfs under a writable ext4, joined by overlayfs, or the root of a disk image. The
// agent moves into it.
#ifndef TRIO_SANDBOX_ROOT_H
#define TRIO_SANDBOX_ROOT_H

#include <stdbool.h>

// Mounts the disks with these serials and makes the result the root of this process and of all that it starts.
// Returns NULL, or what failed (errno).
const char *root_enter(const char *base_serial, const char *upper_serial);

// The same with the root file system of one disk, see disk_root.h.
const char *root_enter_disk(const char *serial, const char *fstype);

// The folder of the agent's own in the new root is there, for the socket of events.
bool root_has_events(void);

// Everything onto the disk, so that the file behind it holds all that this kernel remembers of it, and nothing is left
// to be written later. False: errno.
bool root_sync(void);

// Everything onto the disk, and the file systems read-only. False: somebody still writes (errno); data is synced
// anyway.
bool root_release(void);

#endif
