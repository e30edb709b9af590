// For tests: warms what `warm_check ROOT PATTERN…` names, with the agent's own code, and prints "FILES BYTES".
#include <stdio.h>
#include <string.h>

#include "../warm.h"
#include "../wire.h"

int main(int argc, char **argv)
{
    struct mp_text patterns[WARM_MAX];
    if (argc < 2 || argc - 2 > WARM_MAX)
        return 2;
    for (int i = 2; i < argc; i++)
        patterns[i - 2] = (struct mp_text){argv[i], strlen(argv[i])};
    struct warm_result result = warm_files(argv[1], patterns, (size_t)(argc - 2));
    printf("%zu %zu\n", result.files, result.bytes);
    return 0;
}
