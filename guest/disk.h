// Disks of the machine, found by the serial that the host gave them.
#ifndef TRIO_SANDBOX_DISK_H
#define TRIO_SANDBOX_DISK_H

#include <stdbool.h>

enum { DISK_NAME_MAX = 31 }; // bytes, of the kernel's DISK_NAME_LEN

// Waits for the disk, which is found in the background after its driver was loaded. `name` gets what /dev and
// /sys/block call it. False: errno.
bool disk_find(const char *serial, char name[DISK_NAME_MAX + 1]);

#endif
