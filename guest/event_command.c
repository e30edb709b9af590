#include "event_command.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "event_line.h"

// Longer than any line of the agent.
enum { BUFFER = sizeof " \n" + EVENT_NAME_MAX + EVENT_MAX };

static const char usage[] =
    "usage: " EVENTS_PROGRAM
    " emit NAME JSON           send an event to the host; JSON - reads it from standard input\n"
    "       " EVENTS_PROGRAM " listen [NAME] [--newest] print events of the host, one a line: NAME JSON\n"
    "\n"
    "NAME is 1 to 128 letters, digits, '.', '_' and '-'; JSON is one value of at most 64 KiB. A listener that does "
    "not\n"
    "keep up loses the oldest events, with --newest those that come; the line \"! N\" says how many were lost.\n"
    "The socket is " EVENTS_SOCKET ", or what MSB_EVENTS_SOCKET names.\n";

bool event_command_is(const char *name)
{
    const char *slash = name ? strrchr(name, '/') : NULL;
    return name && strcmp(slash ? slash + 1 : name, EVENTS_PROGRAM) == 0;
}

static int complain(const char *about, const char *problem)
{
    fprintf(stderr, EVENTS_PROGRAM ": %s%s%s\n", about, *about ? ": " : "", problem);
    return 1;
}

static int reach_agent(void)
{
    const char *path = getenv("MSB_EVENTS_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path)
        path = EVENTS_SOCKET;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (strlen(path) >= sizeof address.sun_path)
        errno = ENAMETOOLONG;
    else if (fd >= 0 && (strcpy(address.sun_path, path), connect(fd, (struct sockaddr *)&address, sizeof address)) == 0)
        return fd;
    complain(path, strerror(errno));
    return -1;
}

static bool write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t count = write(fd, bytes, length);
        if (count < 0 && errno != EINTR)
            return false;
        if (count > 0) {
            bytes += count;
            length -= (size_t)count;
        }
    }
    return true;
}

// Reads until the end, or until `size` bytes are there. Returns how many, or -1.
static ssize_t read_all(int fd, char *bytes, size_t size)
{
    size_t length = 0;
    while (length < size) {
        ssize_t count = read(fd, bytes + length, size - length);
        if (count < 0 && errno != EINTR)
            return -1;
        if (count == 0)
            break;
        if (count > 0)
            length += (size_t)count;
    }
    return (ssize_t)length;
}

// What the agent says to the one line that it was sent; what follows it is not read. True: "ok".
static bool is_accepted(int fd)
{
    char line[200];
    size_t length = 0;
    while (length < sizeof line - 1) {
        ssize_t count = read(fd, line + length, 1);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0 || line[length] == '\n')
            break;
        length++;
    }
    line[length] = '\0';
    if (strcmp(line, "ok") == 0)
        return true;
    complain("", strncmp(line, "error ", 6) == 0 ? line + 6 : "the agent went away");
    return false;
}

static int emit(const char *name, const char *json)
{
    static char value[EVENT_MAX + 4096]; // of standard input, where blanks may surround it
    static char line[EVENT_LINE_MAX + sizeof value];
    struct mp_text name_text = {name, strlen(name)}, text = {json, strlen(json)};
    if (strcmp(json, "-") == 0) {
        ssize_t length = read_all(STDIN_FILENO, value, sizeof value);
        if (length < 0)
            return complain("standard input", strerror(errno));
        if (length == sizeof value)
            return complain("", "the value is longer than 64 KiB");
        while (length > 0 && strchr(" \t\r\n", value[length - 1]) && value[length - 1])
            length--;
        text = (struct mp_text){value, (size_t)length};
    }
    // The agent checks all of this too. But a name must not bring in a second line, and too long a line is not sent.
    if (!event_name_is_valid(name_text))
        return complain("", "a name is 1 to 128 letters, digits, '.', '_' and '-'");
    if (text.length > EVENT_MAX)
        return complain("", "the value is longer than 64 KiB");
    int begun = snprintf(line, sizeof line, "emit %s ", name);
    size_t length = (size_t)begun + text.length;
    memcpy(line + begun, text.bytes, text.length);
    // JSON may have line feeds where it may have tabs, and in no other place either.
    for (char *at = line + begun; (at = memchr(at, '\n', (size_t)(line + length - at)));)
        *at = '\t';
    line[length++] = '\n';
    int fd = reach_agent();
    if (fd < 0)
        return 1;
    if (!write_all(fd, line, length) && errno != EPIPE) // then the agent says why
        return complain("", strerror(errno));
    return is_accepted(fd) ? 0 : 1;
}

// Copies whole lines until the agent or whoever reads them goes away; both are an end like any other.
static int print_lines(int fd)
{
    static char buffer[BUFFER];
    size_t length = 0;
    struct pollfd either[] = {{.fd = fd, .events = POLLIN}, {.fd = STDOUT_FILENO}};
    while (poll(either, 2, -1) >= 0 || errno == EINTR) {
        if (either[1].revents & (POLLERR | POLLHUP | POLLNVAL))
            return 0;
        if (!(either[0].revents & (POLLIN | POLLERR | POLLHUP)))
            continue;
        ssize_t count = read(fd, buffer + length, sizeof buffer - length);
        if (count <= 0)
            return count == 0 || errno == ECONNRESET ? 0 : complain("", strerror(errno));
        length += (size_t)count;
        char *end = memrchr(buffer, '\n', length);
        size_t whole = end ? (size_t)(end + 1 - buffer) : 0;
        if (!write_all(STDOUT_FILENO, buffer, whole))
            return errno == EPIPE ? 0 : complain("standard output", strerror(errno));
        memmove(buffer, buffer + whole, length - whole);
        length -= whole;
    }
    return complain("", strerror(errno));
}

static int listen_to(const char *name, bool newest)
{
    char line[EVENT_NAME_MAX + 32];
    if (*name && !event_name_is_valid((struct mp_text){name, strlen(name)}))
        return complain("", "a name is 1 to 128 letters, digits, '.', '_' and '-'");
    int length = snprintf(line, sizeof line, "listen %s %s\n", name, newest ? "newest" : "oldest");
    int fd = reach_agent();
    if (fd < 0)
        return 1;
    write_all(fd, line, (size_t)length);
    return is_accepted(fd) ? print_lines(fd) : 1;
}

static int misused(void)
{
    fputs(usage, stderr);
    return 2;
}

int event_command(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(usage, stdout);
        return 0;
    }
    if (argc == 4 && strcmp(argv[1], "emit") == 0)
        return emit(argv[2], argv[3]);
    if (argc < 2 || strcmp(argv[1], "listen") != 0)
        return misused();
    const char *name = "";
    bool newest = false;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--newest") == 0 && !newest)
            newest = true;
        else if (*argv[i] != '-' && *argv[i] && !*name)
            name = argv[i];
        else
            return misused();
    }
    return listen_to(name, newest);
}
