// Is a text one JSON value (RFC 8259) that fits a line? Nothing is built, nothing recurses, each byte is seen once.
#ifndef TRIO_SANDBOX_JSON_CHECK_H
#define TRIO_SANDBOX_JSON_CHECK_H

#include <stddef.h>

enum {
    JSON_DEPTH_MAX = 64,    // arrays and objects within each other
    JSON_NUMBER_MAX = 1024, // characters of one number: readers that turn any number into an integer have limits too
};

// NULL when it is, else what is wrong with it, in ASCII. Stricter than the RFC in this: UTF-8 without surrogates, no
// line feed anywhere, and the two bounds above. Not looked at: keys that come twice, and what \u escapes make together.
const char *json_problem(const char *text, size_t length);

#endif
