// A queue of bytes in one circular buffer that grows, up to a limit, and never moves bytes that only pass through.
#ifndef TRIO_SANDBOX_RING_H
#define TRIO_SANDBOX_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct ring {
    uint8_t *bytes;
    size_t capacity; // 0 or a power of two
    size_t head;     // index of the oldest byte
    size_t size;     // bytes held
};

// Makes room for `more` bytes. False when the ring would hold more than `limit`, or when memory is short.
bool ring_reserve(struct ring *ring, size_t more, size_t limit);

// Appends; the room must have been reserved.
void ring_put(struct ring *ring, const void *bytes, size_t count);

// Up to `count` bytes from `offset` as at most two pieces; returns the number of pieces.
int ring_peek(const struct ring *ring, size_t offset, size_t count, struct iovec pieces[2]);

// The reserved room after `offset` further bytes, as at most two pieces to read into; ring_grown() then makes it count.
int ring_room(const struct ring *ring, size_t offset, size_t count, struct iovec pieces[2]);
void ring_grown(struct ring *ring, size_t count);

void ring_drop(struct ring *ring, size_t count);
void ring_free(struct ring *ring);

#endif
