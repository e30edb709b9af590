// The baseline of the relay's benchmark: runs in the guest and moves bytes between its standard streams and a
// virtio-serial port of its own, with nothing in the way: no frames, no credit, no other session.
//   bare_port PORT echo COUNT     sends back COUNT messages of up to 64 bytes
//   bare_port PORT out            standard input to the port, up to its end, once the host has sent a byte
//   bare_port PORT in BYTES       BYTES from the port to standard output, then one byte to the host
// PORT is the port's name. The program says that it is there with one byte.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024, MESSAGE = 64 };

static char bytes[CHUNK];

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

static bool has_name(const char *folder, const char *entry, const char *wanted)
{
    char path[400], name[64] = "";
    snprintf(path, sizeof path, "%s/%s/name", folder, entry);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool read = fgets(name, sizeof name, file);
    fclose(file);
    name[strcspn(name, "\n")] = '\0';
    return read && strcmp(name, wanted) == 0;
}

static int open_port(const char *wanted)
{
    static const char folder_path[] = "/sys/class/virtio-ports";
    DIR *folder = opendir(folder_path);
    int fd = -1;
    for (struct dirent *entry; folder && fd < 0 && (entry = readdir(folder));) {
        char path[300];
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        if (has_name(folder_path, entry->d_name, wanted))
            fd = open(path, O_RDWR | O_CLOEXEC);
    }
    if (folder)
        closedir(folder);
    return fd;
}

static void write_all(int fd, const char *from, size_t count)
{
    while (count) {
        ssize_t written = write(fd, from, count);
        if (written <= 0)
            fail("write");
        from += written;
        count -= (size_t)written;
    }
}

static size_t read_some(int fd, size_t most)
{
    ssize_t count = read(fd, bytes, most);
    if (count < 0)
        fail("read");
    return (size_t)count;
}

// The port gives 4 KiB at a time. To pass each on by itself would wake the reader as often, and take five times as
// long.
static size_t collect(int port, size_t most)
{
    size_t have = 0;
    while (have < most) {
        ssize_t count = read(port, bytes + have, most - have);
        if (count < 0 && errno == EAGAIN && have)
            break;
        if (count < 0 && errno == EAGAIN)
            poll(&(struct pollfd){.fd = port, .events = POLLIN}, 1, -1);
        else if (count <= 0)
            fail("read");
        else
            have += (size_t)count;
    }
    return have;
}

static void take_in(int port, size_t left)
{
    if (fcntl(port, F_SETFL, O_RDWR | O_NONBLOCK) != 0)
        fail("port");
    while (left) {
        size_t count = collect(port, left < CHUNK ? left : CHUNK);
        write_all(STDOUT_FILENO, bytes, count);
        left -= count;
    }
    fcntl(port, F_SETFL, O_RDWR);
    write_all(port, "!", 1);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 2 ? argv[2] : "";
    size_t number = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    int port = argc > 2 ? open_port(argv[1]) : -1;
    if (port < 0)
        fail("no such port");
    write_all(port, "!", 1);
    if (strcmp(mode, "echo") == 0) {
        for (; number; number--)
            write_all(port, bytes, read_some(port, MESSAGE));
    } else if (strcmp(mode, "out") == 0) {
        read_some(port, 1);
        for (size_t count; (count = read_some(STDIN_FILENO, CHUNK)) > 0;)
            write_all(port, bytes, count);
    } else if (strcmp(mode, "in") == 0) {
        take_in(port, number);
    }
    return 0;
}
