#include "ring.h"

#include <stdlib.h>
#include <string.h>

enum { SMALLEST = 4096 };

typedef uint64_t word __attribute__((may_alias, aligned(1)));

// One libc copies with string instructions, which an emulated processor takes ten times as long for as for plain words.
static void copy(uint8_t *to, const uint8_t *from, size_t count)
{
    for (; count >= 64; count -= 64, to += 64, from += 64) {
        word a = ((const word *)from)[0], b = ((const word *)from)[1], c = ((const word *)from)[2],
             d = ((const word *)from)[3], e = ((const word *)from)[4], f = ((const word *)from)[5],
             g = ((const word *)from)[6], h = ((const word *)from)[7];
        ((word *)to)[0] = a, ((word *)to)[1] = b, ((word *)to)[2] = c, ((word *)to)[3] = d;
        ((word *)to)[4] = e, ((word *)to)[5] = f, ((word *)to)[6] = g, ((word *)to)[7] = h;
    }
    memcpy(to, from, count);
}

static int pieces_at(const struct ring *ring, size_t start, size_t count, struct iovec pieces[2])
{
    if (count == 0)
        return 0;
    size_t until_wrap = ring->capacity - start;
    size_t first = count < until_wrap ? count : until_wrap;
    pieces[0] = (struct iovec){ring->bytes + start, first};
    if (first == count)
        return 1;
    pieces[1] = (struct iovec){ring->bytes, count - first};
    return 2;
}

bool ring_reserve(struct ring *ring, size_t more, size_t limit)
{
    if (more > limit || ring->size > limit - more)
        return false;
    size_t capacity = ring->capacity ? ring->capacity : SMALLEST;
    while (capacity < ring->size + more)
        capacity *= 2;
    if (capacity == ring->capacity)
        return true;
    uint8_t *bytes = malloc(capacity);
    if (!bytes)
        return false;
    struct iovec pieces[2];
    size_t copied = 0;
    for (int i = 0, n = ring_peek(ring, 0, ring->size, pieces); i < n; i++) {
        memcpy(bytes + copied, pieces[i].iov_base, pieces[i].iov_len);
        copied += pieces[i].iov_len;
    }
    free(ring->bytes);
    ring->bytes = bytes;
    ring->capacity = capacity;
    ring->head = 0;
    return true;
}

void ring_put(struct ring *ring, const void *bytes, size_t count)
{
    struct iovec pieces[2];
    const uint8_t *from = bytes;
    for (int i = 0, n = ring_room(ring, 0, count, pieces); i < n; i++) {
        copy(pieces[i].iov_base, from, pieces[i].iov_len);
        from += pieces[i].iov_len;
    }
    ring->size += count;
}

int ring_peek(const struct ring *ring, size_t offset, size_t count, struct iovec pieces[2])
{
    if (offset >= ring->size)
        return 0;
    if (count > ring->size - offset)
        count = ring->size - offset;
    return pieces_at(ring, (ring->head + offset) & (ring->capacity - 1), count, pieces);
}

int ring_room(const struct ring *ring, size_t offset, size_t count, struct iovec pieces[2])
{
    return pieces_at(ring, (ring->head + ring->size + offset) & (ring->capacity - 1), count, pieces);
}

void ring_grown(struct ring *ring, size_t count)
{
    ring->size += count;
}

void ring_drop(struct ring *ring, size_t count)
{
    ring->size -= count;
    ring->head = ring->size ? (ring->head + count) & (ring->capacity - 1) : 0;
}

void ring_free(struct ring *ring)
{
    free(ring->bytes);
    *ring = (struct ring){0};
}
