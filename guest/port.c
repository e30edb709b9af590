#include "port.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "smallfile.h"

static const char folder_path[] = "/sys/class/virtio-ports";
static const char wanted[] = "trio_sandbox.agent";

static int open_named(void)
{
    DIR *folder = opendir(folder_path);
    int fd = -1;
    for (struct dirent *entry; folder && fd < 0 && (entry = readdir(folder));) {
        char path[300], name[64];
        snprintf(path, sizeof path, "%s/name", entry->d_name);
        if (entry->d_name[0] == '.' || read_small_file(dirfd(folder), path, name, sizeof name) < 0 ||
            strcmp(name, wanted) != 0)
            continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    }
    if (folder)
        closedir(folder);
    return fd;
}

static int is_connected(int fd)
{
    struct pollfd port = {.fd = fd, .events = POLLIN | POLLOUT};
    return poll(&port, 1, 0) >= 0 && !(port.revents & POLLHUP);
}

int port_open(int patience_ms)
{
    int fd = -1;
    // There is no event to wait for: the name of a port and its connection become known by messages to the driver.
    for (int i = 0; i < patience_ms; i++) {
        if (fd < 0)
            fd = open_named();
        if (fd >= 0 && is_connected(fd))
            return fd;
        sleep_ns(NS_PER_MS);
    }
    if (fd >= 0)
        close(fd);
    errno = ENOTCONN;
    return -1;
}
