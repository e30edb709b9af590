#pragma once

#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

// Gives every signal its default action. By system call: a libc refuses to touch the two or three signals that it uses
// itself, and those can have been inherited as ignored too.
static inline void default_signals(void)
{
    static const unsigned char zeros[64]; // the kernel's struct sigaction: SIG_DFL, no flags, an empty mask
    for (int signal = 1; signal <= 64; signal++)
        syscall(SYS_rt_sigaction, signal, zeros, NULL, (size_t)8); // fails for SIGKILL and SIGSTOP, which is as well
}
