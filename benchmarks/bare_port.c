// The baseline of the relay's benchmark: runs in the guest and moves bytes between its standard streams and a
// virtio-serial port of its own, with nothing in the way: no frames, no credit, no other session.
//   bare_port PORT echo COUNT     sends back COUNT messages of up to 64 bytes
//   bare_port PORT out            standard input to the port, up to its end, once the host has sent a byte
//   bare_port PORT in BYTES       BYTES from the port to standard output, then one byte back
// PORT is the port's name. The program says that it is there with one byte.
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024, MESSAGE = 64 };

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int open_port(const char *wanted)
{
    static const char folder_path[] = "/sys/class/virtio-ports";
    DIR *folder = opendir(folder_path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char path[400], name[64] = "";
        snprintf(path, sizeof path, "%s/%s/name", folder_path, entry->d_name);
        FILE *file = fopen(path, "re");
        if (!file)
            continue;
        bool found = fgets(name, sizeof name, file) && (name[strcspn(name, "\n")] = '\0', strcmp(name, wanted) == 0);
        fclose(file);
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        if (found) {
            closedir(folder);
            return open(path, O_RDWR | O_CLOEXEC);
        }
    }
    fail("no such port");
}

static void write_all(int fd, const char *bytes, size_t count)
{
    while (count) {
        ssize_t written = write(fd, bytes, count);
        if (written <= 0)
            fail("write");
        bytes += written;
        count -= (size_t)written;
    }
}

static size_t read_some(int fd, char *bytes, size_t most)
{
    ssize_t count = read(fd, bytes, most);
    if (count < 0)
        fail("read");
    return (size_t)count;
}

int main(int argc, char **argv)
{
    static char bytes[CHUNK];
    if (argc < 3)
        return 2;
    int port = open_port(argv[1]);
    if (port < 0)
        fail("port");
    long long left = argc > 3 ? atoll(argv[3]) : 0;
    write_all(port, "!", 1);
    if (strcmp(argv[2], "echo") == 0) {
        for (; left; left--)
            write_all(port, bytes, read_some(port, bytes, MESSAGE));
    } else if (strcmp(argv[2], "out") == 0) {
        read_some(port, bytes, 1);
        for (size_t count; (count = read_some(STDIN_FILENO, bytes, CHUNK)) > 0;)
            write_all(port, bytes, count);
    } else if (strcmp(argv[2], "in") == 0) {
        while (left > 0) {
            size_t count = read_some(port, bytes, CHUNK);
            write_all(STDOUT_FILENO, bytes, count);
            left -= (long long)count;
        }
        write_all(port, "!", 1);
    }
    return 0;
}
