#include "event_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "events.h"
#include "log.h"

enum {
    BUFFER_MIN = 4096,
    BUFFER_MAX = EVENT_LINE_MAX + 1,
    STEPS = 16,          // of emitters, before the rest of the agent has its turn; a step is a read or a line
    WRITE_MAX = 1 << 16, // bytes to one listener, likewise
};

struct connection {
    struct watch watch;
    bool listening, readable;
    bool blocked;            // the socket took no more
    bool deaf;               // it went away without waiting for the answers: what it has said counts nevertheless
    bool skipping;           // the rest of a line that was refused
    char *buffer;            // of `capacity` bytes
    size_t capacity;         // at most BUFFER_MAX
    size_t start, seen, end; // what is not taken yet is start..end; until `seen` there is no line feed
    char answer[96];         // what is left of it
    size_t answer_length;
    struct event_queue queue; // of a listener
};

static struct {
    int set; // epoll: the listening socket, and the emitters edge-triggered
    struct watch set_watch, socket;
    bool open;
    bool knocking; // somebody may wait to be accepted
    bool busy;     // there may be something to do
    bool paused;   // the budget is spent, and the set not looked at
    int events_left;
    long bytes_left;
    uint64_t turn_end;
    unsigned cursor; // whose turn it is
    struct connection connections[EVENT_CONNECTIONS_MAX];
} server;

static void close_connection(struct agent *agent, struct connection *connection)
{
    if (!connection->listening)
        epoll_ctl(server.set, EPOLL_CTL_DEL, connection->watch.fd, NULL);
    watch_close(agent, &connection->watch);
    free(connection->buffer);
    event_queue_clear(&connection->queue);
    *connection = (struct connection){.watch = {.fd = -1}};
}

static bool is_spent(void)
{
    return server.events_left <= 0 || server.bytes_left <= 0;
}

static void spend(int events, size_t bytes)
{
    if (server.events_left == EVENTS_IN_TURN && server.bytes_left == EVENT_BYTES_IN_TURN)
        server.turn_end = clock_now() + EVENT_TURN_MS * NS_PER_MS;
    server.events_left -= events;
    server.bytes_left -= (long)bytes;
}

static void refill(struct agent *agent, uint64_t now)
{
    if (now < server.turn_end)
        return;
    server.events_left = EVENTS_IN_TURN;
    server.bytes_left = EVENT_BYTES_IN_TURN;
    if (server.paused)
        watch_change(agent, &server.set_watch, EPOLLIN);
    server.paused = false;
}

static void pause_emitters(struct agent *agent)
{
    if (!server.paused)
        watch_change(agent, &server.set_watch, 0);
    server.paused = true;
}

static void accept_one(struct agent *agent)
{
    int fd = accept4(server.socket.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        server.knocking = errno == EINTR || errno == ECONNABORTED;
        if (errno != EAGAIN && !server.knocking) {
            log_error("accepting a connection for events: %m");
            spend(EVENTS_IN_TURN, 0); // it will be tried again, but not at once
        }
        return;
    }
    spend(1, 0);
    for (unsigned i = 0; i < EVENT_CONNECTIONS_MAX; i++) {
        struct connection *connection = &server.connections[i];
        if (connection->watch.fd >= 0)
            continue;
        *connection = (struct connection){.watch = {.kind = WATCH_LISTENER, .fd = fd}};
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = &connection->watch};
        if (epoll_ctl(server.set, EPOLL_CTL_ADD, fd, &event) != 0)
            close_connection(agent, connection);
        return;
    }
    static const char text[] = "error too many connections\n";
    send(fd, text, sizeof text - 1, MSG_NOSIGNAL);
    close(fd);
}

// False: the connection has not taken all yet.
static bool send_answer(struct connection *connection)
{
    if (connection->answer_length == 0)
        return true;
    ssize_t count = send(connection->watch.fd, connection->answer, connection->answer_length, MSG_NOSIGNAL);
    if (count < 0 && errno != EAGAIN && errno != EINTR)
        connection->deaf = true;
    connection->blocked = count < 0 && errno == EAGAIN;
    if (connection->deaf)
        connection->answer_length = 0;
    if (count > 0) {
        connection->answer_length -= (size_t)count;
        memmove(connection->answer, connection->answer + count, connection->answer_length);
    }
    return connection->answer_length == 0;
}

static void answer(struct connection *connection, const char *problem)
{
    if (connection->deaf)
        return;
    int length = snprintf(connection->answer, sizeof connection->answer, problem ? "error %s\n" : "ok\n", problem);
    connection->answer_length = (size_t)length;
    send_answer(connection);
}

static void become_listener(struct agent *agent, struct connection *connection, const struct event_request *request)
{
    connection->queue = event_queue_for(request->name, request->drop_oldest);
    epoll_ctl(server.set, EPOLL_CTL_DEL, connection->watch.fd, NULL);
    connection->listening = true;
    free(connection->buffer);
    connection->buffer = NULL;
    answer(connection, NULL);
    // Without EPOLLIN: what it still says waits in its socket, and nobody is woken by it. EPOLLOUT comes at once.
    if (!watch_open(agent, &connection->watch, EPOLLOUT | EPOLLRDHUP | EPOLLET))
        close_connection(agent, connection);
}

static void take_line(struct agent *agent, struct connection *connection, struct mp_text line)
{
    struct event_request request;
    spend(1, 0);
    const char *problem = event_request_parse(line, &request);
    if (!problem && request.kind == REQUEST_LISTEN) {
        become_listener(agent, connection, &request);
        return;
    }
    if (!problem && !events_from_guest(agent, request.name, request.json))
        problem = "there is no memory for it";
    answer(connection, problem);
}

static void refuse_line(struct connection *connection, const char *problem)
{
    connection->start = connection->seen = connection->end = 0;
    if (!connection->skipping)
        answer(connection, problem);
    connection->skipping = true;
}

static bool next_line(struct connection *connection, struct mp_text *line)
{
    size_t unseen = connection->end - connection->seen;
    char *end = unseen ? memchr(connection->buffer + connection->seen, '\n', unseen) : NULL;
    connection->seen = end ? (size_t)(end + 1 - connection->buffer) : connection->end;
    if (!end)
        return false;
    *line = (struct mp_text){connection->buffer + connection->start, connection->seen - 1 - connection->start};
    connection->start = connection->seen;
    return true;
}

static bool make_room(struct connection *connection)
{
    size_t left = connection->end - connection->start;
    if (left == 0 && connection->capacity > BUFFER_MIN) { // nobody knows when it says something again
        free(connection->buffer);
        connection->buffer = NULL;
        connection->capacity = 0;
    }
    if (left > 0 && connection->start > 0)
        memmove(connection->buffer, connection->buffer + connection->start, left);
    connection->seen -= connection->start;
    connection->start = 0;
    connection->end = left;
    if (left < connection->capacity)
        return true;
    size_t capacity = connection->capacity ? 2 * connection->capacity : BUFFER_MIN;
    char *buffer =
        left < BUFFER_MAX ? realloc(connection->buffer, capacity < BUFFER_MAX ? capacity : BUFFER_MAX) : NULL;
    if (!buffer)
        return false;
    connection->buffer = buffer;
    connection->capacity = capacity < BUFFER_MAX ? capacity : BUFFER_MAX;
    return true;
}

static void read_some(struct agent *agent, struct connection *connection)
{
    if (!make_room(connection)) {
        refuse_line(connection, connection->end == BUFFER_MAX ? "the line is too long" : "there is no memory for it");
        return;
    }
    ssize_t count =
        recv(connection->watch.fd, connection->buffer + connection->end, connection->capacity - connection->end, 0);
    if (count > 0) {
        spend(0, (size_t)count);
        connection->end += (size_t)count;
    } else if (count < 0 && errno == EAGAIN) {
        connection->readable = false;
    } else if (count == 0 || errno != EINTR) {
        close_connection(agent, connection); // a line without an end was none
    }
}

// False: there is nothing to do for this emitter.
static bool step(struct agent *agent, struct connection *connection)
{
    struct mp_text line;
    if (connection->watch.fd < 0 || connection->listening || connection->blocked || !send_answer(connection))
        return false;
    if (next_line(connection, &line)) {
        if (connection->skipping)
            connection->skipping = false;
        else
            take_line(agent, connection, line);
    } else if (connection->readable) {
        if (connection->skipping)
            connection->start = connection->seen = connection->end = 0;
        read_some(agent, connection);
    } else {
        return false;
    }
    return true;
}

// True: some emitter may have more.
static bool step_in_turn(struct agent *agent)
{
    unsigned idle = 0;
    for (int steps = 0; steps < STEPS && idle < EVENT_CONNECTIONS_MAX && !is_spent();) {
        bool did = step(agent, &server.connections[server.cursor]);
        server.cursor = (server.cursor + 1) % EVENT_CONNECTIONS_MAX;
        steps += did;
        idle = did ? 0 : idle + 1;
    }
    return idle < EVENT_CONNECTIONS_MAX;
}

// True: there may be room for more.
static bool feed(struct agent *agent, struct connection *connection)
{
    struct iovec pieces[EVENT_PIECES];
    if (!connection->listening || connection->blocked || !send_answer(connection))
        return false;
    if (event_queue_is_empty(&connection->queue))
        return false;
    struct msghdr message = {.msg_iov = pieces};
    message.msg_iovlen = (size_t)event_queue_peek(&connection->queue, WRITE_MAX, pieces);
    ssize_t count = sendmsg(connection->watch.fd, &message, MSG_NOSIGNAL);
    if (count > 0)
        event_queue_sent(&connection->queue, (size_t)count);
    else if (count < 0 && errno == EAGAIN)
        connection->blocked = true;
    else if (count < 0 && errno != EINTR)
        close_connection(agent, connection);
    return connection->watch.fd >= 0 && !connection->blocked && !event_queue_is_empty(&connection->queue);
}

size_t event_server_tell(struct mp_text name, struct event *event)
{
    size_t reached = 0;
    for (unsigned i = 0; i < EVENT_CONNECTIONS_MAX; i++) {
        struct connection *connection = &server.connections[i];
        if (connection->listening && event_queue_wants(&connection->queue, name))
            reached += event_queue_add(&connection->queue, event);
    }
    server.busy |= reached > 0;
    return reached;
}

void event_listener_ready(struct agent *agent, struct watch *watch, uint32_t events)
{
    struct connection *connection = (struct connection *)watch;
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        close_connection(agent, connection);
    connection->blocked = false;
    server.busy = true;
}

void event_server_ready(struct agent *agent)
{
    struct epoll_event events[EVENT_CONNECTIONS_MAX + 1];
    (void)agent;
    int count = epoll_wait(server.set, events, EVENT_CONNECTIONS_MAX + 1, 0);
    for (int i = 0; i < count; i++) {
        struct connection *connection = events[i].data.ptr;
        if (!connection) {
            server.knocking = true;
            continue;
        }
        connection->readable |= (events[i].events & ~(uint32_t)EPOLLOUT) != 0;
        if (events[i].events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
            connection->blocked = false;
    }
    server.busy = true;
}

bool event_server_pump(struct agent *agent, uint64_t now)
{
    bool more = false;
    if (!server.busy)
        return false;
    refill(agent, now);
    for (int i = 0; i < STEPS && server.knocking && !is_spent(); i++)
        accept_one(agent);
    bool waiting = step_in_turn(agent) || server.knocking;
    for (unsigned i = 0; i < EVENT_CONNECTIONS_MAX; i++)
        more |= feed(agent, &server.connections[i]);
    if (is_spent())
        pause_emitters(agent);
    else
        more |= waiting;
    server.busy = more || server.paused;
    return more;
}

uint64_t event_server_deadline(void)
{
    return server.paused ? server.turn_end : NEVER;
}

static bool listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return false;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    server.socket = (struct watch){.fd = fd};
    return fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && chmod(path, 0666) == 0 &&
           listen(fd, EVENT_CONNECTIONS_MAX) == 0;
}

bool event_server_open(struct agent *agent, const char *path)
{
    struct epoll_event knocks = {.events = EPOLLIN}; // with no pointer to a connection
    for (unsigned i = 0; i < EVENT_CONNECTIONS_MAX; i++)
        server.connections[i].watch.fd = -1;
    server.open = true;
    server.set = epoll_create1(EPOLL_CLOEXEC);
    server.set_watch = (struct watch){.kind = WATCH_EMITTERS, .fd = server.set};
    if (listen_at(path) && server.set >= 0 && epoll_ctl(server.set, EPOLL_CTL_ADD, server.socket.fd, &knocks) == 0 &&
        watch_open(agent, &server.set_watch, EPOLLIN))
        return true;
    int saved = errno;
    event_server_close(agent);
    errno = saved;
    return false;
}

void event_server_close(struct agent *agent)
{
    if (!server.open)
        return;
    for (unsigned i = 0; i < EVENT_CONNECTIONS_MAX; i++)
        if (server.connections[i].watch.fd >= 0)
            close_connection(agent, &server.connections[i]);
    watch_close(agent, &server.socket);
    watch_close(agent, &server.set_watch);
    server.open = server.busy = server.paused = false;
}
