// The operations, one function each. They run in a helper process of their own, may block as long as they like, and
// leave to its exit whatever they hold: descriptors and memory. Bytes come on standard input and go to standard output.
#ifndef TRIO_SANDBOX_FS_OPS_H
#define TRIO_SANDBOX_FS_OPS_H

#include "fs_request.h"
#include "fs_result.h"

// False: the error is in *result, and what was done until then stays done, unless wire.md says otherwise.
typedef bool fs_operation(const struct fs_request *request, struct fs_result *result);

fs_operation fs_read, fs_write; // fs_bytes.c
fs_operation fs_list;           // fs_list.c
fs_operation fs_stat, fs_readlink, fs_mkdir, fs_remove, fs_rename, fs_symlink, fs_chmod, fs_chown, fs_sync; // fs_meta.c
fs_operation fs_remove_dir; // fs_remove.c
fs_operation fs_copy;       // fs_copy.c
fs_operation fs_pack;       // fs_pack.c
fs_operation fs_unpack;     // fs_unpack.c

#endif
