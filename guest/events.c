#include "events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "event_queue.h"
#include "event_server.h"
#include "messages.h"
#include "output.h"
#include "session.h"

struct subscription {
    struct subscription *next;
    struct session *session;
    struct event_queue queue;
};

static struct subscription *subscriptions;
static unsigned subscription_count;

bool events_from_guest(struct agent *agent, struct mp_text name, struct mp_text json)
{
    struct event *event = NULL;
    for (struct subscription *one = subscriptions; one; one = one->next) {
        if (!event_queue_wants(&one->queue, name))
            continue;
        if (!event && !(event = event_create(name, json)))
            return false;
        event_queue_add(&one->queue, event);
        output_ready(agent, &one->session->outputs[0]);
    }
    if (event)
        event_release(event);
    return true;
}

// SUBSCRIBE

static size_t produce(struct session *session, uint8_t *bytes, size_t most)
{
    struct subscription *subscription = session->work;
    struct iovec pieces[EVENT_PIECES];
    size_t produced = 0;
    while (produced < most && !event_queue_is_empty(&subscription->queue)) {
        int count = event_queue_peek(&subscription->queue, most - produced, pieces);
        size_t total = 0;
        for (int i = 0; i < count; i++) {
            memcpy(bytes + produced + total, pieces[i].iov_base, pieces[i].iov_len);
            total += pieces[i].iov_len;
        }
        event_queue_sent(&subscription->queue, total);
        produced += total;
    }
    return produced;
}

static void unsubscribe(struct agent *agent, struct session *session)
{
    session_finish_done(agent, session, &(struct done){0});
}

static void forget(struct agent *agent, struct session *session)
{
    struct subscription *subscription = session->work, **at = &subscriptions;
    (void)agent;
    while (*at != subscription)
        at = &(*at)->next;
    *at = subscription->next;
    subscription_count--;
    event_queue_clear(&subscription->queue);
    free(subscription);
    session->work = NULL;
}

static const struct session_kind subscribing = {.kill = unsubscribe, .produce = produce, .release = forget};

struct subscribe {
    struct mp_text name;
    bool drop_oldest;
    int64_t window;
};

static bool decode_subscribe(const uint8_t *body, size_t length, struct subscribe *subscribe)
{
    static const char *const names[] = {"name", "drop_oldest", "window"};
    struct map_walk walk;
    *subscribe = (struct subscribe){.drop_oldest = true, .window = WINDOW};
    map_begin(&walk, body, length);
    for (int key; (key = map_next(&walk, names, 3)) >= 0;) {
        if (key == 0)
            mp_read_str(&walk.reader, &subscribe->name);
        else if (key == 1)
            mp_read_bool(&walk.reader, &subscribe->drop_oldest);
        else
            mp_read_int(&walk.reader, 1, WINDOW, &subscribe->window);
    }
    return map_complete(&walk, 1);
}

void events_subscribe(struct agent *agent, struct session *session, const uint8_t *body, size_t length)
{
    struct subscribe subscribe;
    if (!decode_subscribe(body, length, &subscribe)) {
        session_fail(agent, session, "bad_args", EINVAL, "the SUBSCRIBE message is malformed");
        return;
    }
    if (subscribe.name.length && !event_name_is_valid(subscribe.name)) {
        session_fail(agent, session, "bad_args", EINVAL, "this is not the name of an event");
        return;
    }
    struct subscription *subscription = subscription_count < SUBSCRIPTIONS_MAX ? malloc(sizeof *subscription) : NULL;
    if (!subscription) {
        session_fail(agent, session, "too_many_sessions", EAGAIN, "too many subscriptions are open");
        return;
    }
    *subscription =
        (struct subscription){subscriptions, session, event_queue_for(subscribe.name, subscribe.drop_oldest)};
    subscriptions = subscription;
    subscription_count++;
    session->kind = &subscribing;
    session->work = subscription;
    session_set_windows(session, (uint32_t)subscribe.window, 0);
    session_produce(session);
}

// EMIT

static bool decode_emit(const uint8_t *body, size_t length, struct mp_text *name, struct mp_text *payload)
{
    static const char *const names[] = {"name", "payload"};
    struct map_walk walk;
    map_begin(&walk, body, length);
    for (int key; (key = map_next(&walk, names, 2)) >= 0;) {
        if (key == 0)
            mp_read_str(&walk.reader, name);
        else
            mp_read_bin(&walk.reader, payload);
    }
    return map_complete(&walk, 3);
}

void events_emit(struct agent *agent, struct session *session, const uint8_t *body, size_t length)
{
    struct mp_text name, payload;
    const char *problem = NULL;
    if (!decode_emit(body, length, &name, &payload))
        problem = "the EMIT message is malformed";
    else if (!event_name_is_valid(name))
        problem = "this is not the name of an event";
    else
        problem = event_payload_problem(payload);
    if (problem) {
        session_fail(agent, session, "bad_args", EINVAL, problem);
        return;
    }
    struct event *event = event_create(name, payload);
    if (!event) {
        session_fail(agent, session, "out_of_memory", ENOMEM, "no memory for the event");
        return;
    }
    struct done done = {.count = (int64_t)event_server_tell(name, event)};
    event_release(event);
    session_finish_done(agent, session, &done);
}
