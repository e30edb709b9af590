// For tests: reads disks or partitions, each the next SIZE bytes of standard input after a line "SIZE", and prints for
// each "NAME NUMBER": what is on it ("-" for nothing that is known), and the partition that its GPT calls the root.
#include <stdio.h>
#include <stdlib.h>

#include "../gpt.h"
#include "../superblock.h"

int main(void)
{
    size_t length;
    while (scanf("%zu", &length) == 1 && getchar() == '\n' && length <= SUPERBLOCK_REACH) {
        uint8_t *start = malloc(length ? length : 1); // of this very size, so that a read beyond it is seen
        if (!start || fread(start, 1, length, stdin) != length)
            return 2;
        const char *name = superblock_name(start, length);
        printf("%s %u\n", name ? name : "-", gpt_root_partition(start, length));
        fflush(stdout);
        free(start);
    }
    return feof(stdin) ? 0 : 2;
}
