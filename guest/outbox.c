#include "outbox.h"

#include <errno.h>
#include <sys/uio.h>

#include "frames.h"

bool outbox_add(struct outbox *outbox, enum lane lane, struct header header, const void *body)
{
    struct ring *ring = &outbox->lanes[lane];
    uint8_t bytes[HEADER_SIZE];
    if (!ring_reserve(ring, HEADER_SIZE + header.length, lane == LANE_BULK ? BULK_HARD_MAX : CONTROL_MAX))
        return false;
    header_encode(&header, bytes);
    ring_put(ring, bytes, HEADER_SIZE);
    ring_put(ring, body, header.length);
    return true;
}

size_t outbox_bulk_room(const struct outbox *outbox)
{
    return outbox->lanes[LANE_BULK].size <= BULK_MAX - HEADER_SIZE - BULK_BODY_MAX ? BULK_BODY_MAX : 0;
}

ssize_t outbox_read_bulk(struct outbox *outbox, struct header header, int fd, size_t most)
{
    struct ring *ring = &outbox->lanes[LANE_BULK];
    struct iovec pieces[2];
    if (!ring_reserve(ring, HEADER_SIZE + most, BULK_HARD_MAX)) {
        errno = ENOMEM;
        return -1;
    }
    // The body goes behind a header that is not written yet: its length is known only afterwards.
    ssize_t count = readv(fd, pieces, ring_room(ring, HEADER_SIZE, most, pieces));
    if (count <= 0)
        return count;
    uint8_t bytes[HEADER_SIZE];
    header.length = (uint32_t)count;
    header_encode(&header, bytes);
    ring_put(ring, bytes, HEADER_SIZE);
    ring_grown(ring, (size_t)count);
    return count;
}

bool outbox_is_empty(const struct outbox *outbox)
{
    return outbox->lanes[LANE_CONTROL].size == 0 && outbox->lanes[LANE_BULK].size == 0;
}

static size_t first_frame_size(const struct ring *ring)
{
    struct iovec pieces[2];
    size_t length = 0;
    unsigned at = 0;
    for (int i = 0, n = ring_peek(ring, 0, 4, pieces); i < n; i++)
        for (size_t j = 0; j < pieces[i].iov_len; j++)
            length |= (size_t)((uint8_t *)pieces[i].iov_base)[j] << 8 * at++;
    return HEADER_SIZE + length;
}

static void choose_frame(struct outbox *outbox)
{
    // All control goes at once; of bulk one frame, so that control that comes meanwhile waits for no more than that.
    if (outbox->lanes[LANE_CONTROL].size) {
        outbox->lane = LANE_CONTROL;
        outbox->left = outbox->lanes[LANE_CONTROL].size;
    } else {
        outbox->lane = LANE_BULK;
        outbox->left = first_frame_size(&outbox->lanes[LANE_BULK]);
    }
}

bool outbox_send_first(struct outbox *outbox, int fd)
{
    if (outbox->left == 0)
        choose_frame(outbox);
    struct ring *ring = &outbox->lanes[outbox->lane];
    while (outbox->left) {
        struct iovec pieces[2];
        ssize_t count = writev(fd, pieces, ring_peek(ring, 0, outbox->left, pieces));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return errno == EAGAIN;
        ring_drop(ring, (size_t)count);
        outbox->left -= (size_t)count;
    }
    return true;
}

bool outbox_send(struct outbox *outbox, int fd)
{
    do {
        if (outbox_is_empty(outbox))
            return true;
        if (!outbox_send_first(outbox, fd))
            return false;
    } while (outbox->left == 0);
    return true;
}

void outbox_clear(struct outbox *outbox)
{
    ring_free(&outbox->lanes[LANE_CONTROL]);
    ring_free(&outbox->lanes[LANE_BULK]);
    outbox->left = 0;
}
