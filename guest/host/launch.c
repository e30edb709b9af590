// Starts a program that must not outlive its parent.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../default_signals.h"
#include "host.h"

static int fail(const char *what)
{
    fprintf(stderr, "trio-sandbox-host: %s: %s\n", what, strerror(errno));
    return 1;
}

static void reset_signals(void)
{
    sigset_t none;
    default_signals();
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

int launch(int argc, char **argv)
{
    if (argc < 3 || strcmp(argv[1], "--") != 0) {
        fprintf(stderr, "usage: trio-sandbox-host launch PPID -- PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    // The signal comes when the *thread* that started us ends. If it ended before this call, it never comes: then the
    // parent is another one by now.
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return fail("PR_SET_PDEATHSIG");
    char *end;
    long parent = strtol(argv[0], &end, 10);
    if (*end || getppid() != parent)
        return 1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return fail("PR_SET_NO_NEW_PRIVS");
    if (setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}) != 0) // a core file would hold the memory of the sandbox
        return fail("RLIMIT_CORE");
    if (setpgid(0, 0) != 0 && getpgrp() != getpid()) // Ctrl-C is for the parent, which then ends us in order
        return fail("setpgid");
    reset_signals();
    execvp(argv[2], argv + 2);
    int error = errno;
    fail(argv[2]);
    return error == ENOENT ? 127 : 126;
}
