// The root file system of a disk image: on the whole disk or on one of its partitions.
#ifndef TRIO_SANDBOX_DISK_ROOT_H
#define TRIO_SANDBOX_DISK_ROOT_H

// Finds it on the disk with this serial and mounts it, writable, on `target`. `fstype`: what it must be, "" for
// anything. Returns NULL, or what was found instead (errno).
//
// A disk without partitions is taken as it is. Of partitions the one of the type "root" of a GUID partition table comes
// first, then the largest; the first that has a file system, mounts, and holds what a root does, is the root.
const char *disk_root_mount(const char *serial, const char *fstype, const char *target);

#endif
