// What an EXEC message asks for, checked and turned into what execve(2) takes.
#ifndef TRIO_SANDBOX_EXEC_REQUEST_H
#define TRIO_SANDBOX_EXEC_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

struct resource_limit {
    int resource;
    struct rlimit limit;
};

// One allocation: the strings and arrays lie behind the struct.
struct exec_request {
    char **argv; // ends with NULL
    char **env;  // ends with NULL, and has room for one more
    size_t env_count;
    const char *cwd;  // absolute
    const char *user; // "" is root
    bool make_cwd;    // when it is missing
    bool wants_stdin;
    uint64_t timeout_ns; // 0 = none
    int64_t deadline_ms; // 0 = none
    bool tty;
    uint16_t rows, cols;           // of the terminal
    uint32_t window, stdin_window; // bytes, 1 to WINDOW
    struct resource_limit *limits;
    size_t limit_count;
};

// NULL when the message is not an EXEC map or asks for the impossible: *problem then says what is wrong, or is NULL
// when memory is short. The caller frees the request with free().
struct exec_request *exec_request_decode(const uint8_t *body, size_t length, const char **problem);

#endif
