// Files read into the page cache, so that the clones of a template need not. Nothing is executed.
#ifndef TRIO_SANDBOX_WARM_H
#define TRIO_SANDBOX_WARM_H

#include "msgpack.h"

struct warm_result {
    size_t files, bytes; // read
};

// Reads the regular files below `root` that a pattern names, and looks into the usual folders of programs. A pattern is
// an absolute path of at most WARM_PATTERN_MAX bytes; each part between slashes may hold wildcards as in fnmatch(3).
// Symbolic links lead within `root`, and nothing leads to another mount. What is missing or cannot be read is left out.
// However large the folders and files are, it ends soon: see the bounds in warm.c.
struct warm_result warm_files(const char *root, const struct mp_text *patterns, size_t count);

#endif
