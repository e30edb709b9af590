// Measures the rate of the time-stamp counter, which a guest kernel without a hardware timer cannot find out.
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "host.h"

#if defined(__x86_64__) || defined(__i386__)

enum { INTERVAL_MS = 150 };

struct sample {
    uint64_t ticks;
    int64_t ns;
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// The counter between two looks at the clock. The tightest of several: an interruption in between would skew it.
static struct sample take_sample(void)
{
    struct sample best = {0, 0};
    int64_t best_width = INT64_MAX;
    for (int i = 0; i < 20; i++) {
        int64_t before = now_ns();
        uint64_t ticks = __builtin_ia32_rdtsc();
        int64_t width = now_ns() - before;
        if (width < best_width) {
            best_width = width;
            best = (struct sample){ticks, before + width / 2};
        }
    }
    return best;
}

int tsc_khz(int argc, char **argv)
{
    (void)argc, (void)argv;
    struct sample first = take_sample();
    nanosleep(&(struct timespec){0, INTERVAL_MS * 1000000L}, NULL);
    struct sample last = take_sample();
    double khz = (double)(last.ticks - first.ticks) * 1e6 / (double)(last.ns - first.ns);
    printf("%lld\n", (long long)(khz + 0.5));
    return 0;
}

#else

int tsc_khz(int argc, char **argv)
{
    (void)argc, (void)argv;
    printf("0\n");
    return 0;
}

#endif
