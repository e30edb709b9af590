#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "smallfile.h"
#include "wire.h"

enum { DISK_TRIES = 2000 }; // of a millisecond each

static bool has_serial(const char *disk, const char *serial)
{
    char path[300], found[SERIAL_MAX + 2];
    snprintf(path, sizeof path, "/sys/block/%s/serial", disk);
    return read_small_file(-1, path, found, sizeof found) >= 0 && strcmp(found, serial) == 0;
}

static bool has_device(const char *disk)
{
    char path[DISK_NAME_MAX + 32];
    snprintf(path, sizeof path, "/dev/%s", disk);
    return access(path, F_OK) == 0;
}

static bool find_now(const char *serial, char name[DISK_NAME_MAX + 1])
{
    DIR *folder = opendir("/sys/block");
    bool found = false;
    for (struct dirent *entry; folder && !found && (entry = readdir(folder));) {
        if (entry->d_name[0] == '.' || !has_serial(entry->d_name, serial))
            continue;
        snprintf(name, DISK_NAME_MAX + 1, "%.*s", DISK_NAME_MAX, entry->d_name);
        found = has_device(name);
    }
    if (folder)
        closedir(folder);
    return found;
}

bool disk_find(const char *serial, char name[DISK_NAME_MAX + 1])
{
    for (int i = 0; i < DISK_TRIES; i++) {
        if (find_now(serial, name))
            return true;
        sleep_ns(NS_PER_MS);
    }
    errno = ENODEV;
    return false;
}
