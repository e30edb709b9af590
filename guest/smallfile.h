// Small files of the kernel and of /etc, read and written whole.
#ifndef TRIO_SANDBOX_SMALLFILE_H
#define TRIO_SANDBOX_SMALLFILE_H

#include <stdbool.h>
#include <sys/types.h>

// Reads the file into `text`, terminated, without a final newline. Returns its length, or -1 (errno). What does not fit
// is left out.
ssize_t read_small_file(int folder, const char *path, char *text, size_t size);

// Writes to a file that exists, such as those of the kernel. False: errno.
bool write_kernel_file(int folder, const char *path, const char *text);

// Replaces the content of a file on a file system that somebody else filled: only a regular file is touched, and no
// symbolic link is followed for the last part of the path. The file is made if it is not there. False: errno.
bool replace_file(const char *path, const char *text);

// The two halves of it. -1 or false: errno.
int open_emptied(const char *path);
bool write_and_close(int fd, const char *text);

#endif
