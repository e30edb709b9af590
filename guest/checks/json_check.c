// For tests: judges texts as the agent judges the payload of an event. One line of input is one text, in hex; one line
// of output answers it: "ok", or what is wrong.
#include "../json_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    static char line[2 * 128 * 1024 + 2];
    while (fgets(line, sizeof line, stdin)) {
        size_t count = strcspn(line, "\n") / 2;
        char *text = malloc(count + 1); // of its size, so that the sanitizer sees a step too far
        for (size_t i = 0; text && i < count; i++) {
            unsigned byte;
            sscanf(line + 2 * i, "%2x", &byte);
            text[i] = (char)byte;
        }
        const char *problem = text ? json_problem(text, count) : "no memory";
        printf("%s\n", problem ? problem : "ok");
        fflush(stdout);
        free(text);
    }
    return 0;
}
