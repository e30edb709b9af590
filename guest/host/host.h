// The subcommands of the host helper. Each returns the exit status.
#ifndef TRIO_SANDBOX_HOST_H
#define TRIO_SANDBOX_HOST_H

int launch(int argc, char **argv);  // launch PPID -- PROGRAM ARGUMENT…
int tsc_khz(int argc, char **argv); // tsc-khz

#endif
