#include "fs_place.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

// What the handler removes. One process has at most one unfinished file.
static volatile sig_atomic_t unfinished;
static int unfinished_folder;
static char unfinished_name[FS_NAME_MAX + 1];

static void on_sigterm(int signal)
{
    (void)signal;
    if (unfinished)
        unlinkat(unfinished_folder, unfinished_name, 0);
    _exit(1);
}

void place_handle_sigterm(void)
{
    struct sigaction action = {.sa_handler = on_sigterm};
    sigaction(SIGTERM, &action, NULL);
}

static void hold_sigterm(int how)
{
    sigset_t set;
    int saved = errno;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(how, &set, NULL);
    errno = saved;
}

// Nobody else can know the name beforehand, so a file that has it is ours.
static bool invent_name(char *name)
{
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        return false;
    snprintf(name, FS_NAME_MAX + 1, ".trio-sandbox-%016" PRIx64 ".part", number);
    return true;
}

static bool create(struct fs_place *place)
{
    place->fd = openat(place->folder, place->made_as, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (place->fd < 0)
        return false;
    unfinished_folder = place->folder;
    strcpy(unfinished_name, place->made_as);
    unfinished = true;
    return true;
}

bool place_begin(struct fs_place *place, int folder, const char *name, bool hidden)
{
    *place = (struct fs_place){.fd = -1, .folder = folder, .name = name};
    hold_sigterm(SIG_BLOCK);
    bool made = false;
    if (!hidden) {
        strcpy(place->made_as, name);
        made = create(place);
    }
    if (hidden || (!made && errno == EEXIST))
        made = invent_name(place->made_as) && create(place);
    hold_sigterm(SIG_UNBLOCK);
    return made;
}

void place_abandon(struct fs_place *place)
{
    int saved = errno;
    if (place->fd >= 0) {
        unlinkat(place->folder, place->made_as, 0);
        close(place->fd);
    }
    place->fd = -1;
    unfinished = false;
    errno = saved;
}

bool place_commit(struct fs_place *place)
{
    if (strcmp(place->made_as, place->name) != 0 &&
        renameat(place->folder, place->made_as, place->folder, place->name) != 0) {
        place_abandon(place);
        return false;
    }
    unfinished = false;
    close(place->fd);
    place->fd = -1;
    return true;
}

static bool make_node(int folder, const char *name, mode_t mode, dev_t device, const char *link)
{
    return (S_ISLNK(mode) ? symlinkat(link, folder, name) : mknodat(folder, name, mode, device)) == 0;
}

static bool put_node(int folder, const char *name, mode_t mode, dev_t device, const char *link)
{
    char other[FS_NAME_MAX + 1];
    if (make_node(folder, name, mode, device, link))
        return true;
    if (errno != EEXIST || !invent_name(other) || !make_node(folder, other, mode, device, link))
        return false;
    if (renameat(folder, other, folder, name) == 0)
        return true;
    int saved = errno;
    unlinkat(folder, other, 0);
    errno = saved;
    return false;
}

bool place_node(int folder, const char *name, mode_t mode, dev_t device, const char *link)
{
    hold_sigterm(SIG_BLOCK);
    bool put = put_node(folder, name, mode, device, link);
    hold_sigterm(SIG_UNBLOCK);
    return put;
}
