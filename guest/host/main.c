// trio-sandbox-host: what has to happen on the host outside of Python.
#include <stdio.h>
#include <string.h>

#include "host.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {{"launch", launch}, {"tsc-khz", tsc_khz}};

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (argc >= 2 && strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 2, argv + 2);
    fprintf(stderr, "usage: %s launch PPID -- PROGRAM [ARGUMENT...] | tsc-khz\n", argc ? argv[0] : "trio-sandbox-host");
    return 2;
}
