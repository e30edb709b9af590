// Pseudo-terminals: the agent holds the master, a command has the other end as its controlling terminal.
#ifndef TRIO_SANDBOX_TERMINAL_H
#define TRIO_SANDBOX_TERMINAL_H

#include <stdint.h>

#include "agent.h"

// More than the kernel holds between the two ends (18 KiB on Linux 6): the master tells that there is something, and
// not how much.
enum { TERMINAL_HOLDS = 64 * 1024 };

struct terminal {
    int master; // non-blocking
    int peer;
};

// The device that makes terminals, kept for terminal_open(): whatever the sandbox mounts over /dev later, and whatever
// root the agent moves to, this one is meant. -1: errno.
int terminal_device(bool is_init);

// A new terminal of this size. Both ends are close-on-exec. False: errno, and nothing is left.
bool terminal_open(const struct agent *agent, uint16_t rows, uint16_t cols, struct terminal *terminal);

// In the child, which leads a session: the terminal on descriptor 0 becomes its controlling terminal. False: errno.
bool terminal_take(void);

// Likewise: the terminal on descriptor 0 becomes the user's, who may open it again by its name. False: errno.
bool terminal_give_to(uid_t uid);

// SIGWINCH follows by itself if that changes the size.
void terminal_resize(int master, uint16_t rows, uint16_t cols);

// What is typed to end the input: -1 when no character does so now.
int terminal_end_character(int master);

#endif
