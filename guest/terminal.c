#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "log.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441 // _IO('T', 0x41)
#endif

int terminal_device(bool is_init)
{
    // The one in /dev/pts needs nothing beside it, but hosts commonly let nobody use it.
    return open(is_init ? "/dev/pts/ptmx" : "/dev/ptmx", O_PATH | O_CLOEXEC);
}

bool terminal_open(const struct agent *agent, uint16_t rows, uint16_t cols, struct terminal *terminal)
{
    char path[40];
    snprintf(path, sizeof path, "self/fd/%d", agent->terminals);
    int master = openat(agent->proc, path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (master < 0)
        return false;
    struct winsize size = {.ws_row = rows, .ws_col = cols};
    int peer = -1, unlocked = 0;
    if (ioctl(master, TIOCSPTLCK, &unlocked) == 0 && ioctl(master, TIOCSWINSZ, &size) == 0)
        peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC); // by no path
    if (peer < 0) {
        int saved = errno;
        close(master);
        errno = saved;
        return false;
    }
    *terminal = (struct terminal){.master = master, .peer = peer};
    return true;
}

bool terminal_take(void)
{
    return ioctl(STDIN_FILENO, TIOCSCTTY, 0) == 0;
}

bool terminal_give_to(uid_t uid)
{
    return fchown(STDIN_FILENO, uid, (gid_t)-1) == 0 && fchmod(STDIN_FILENO, 0620) == 0;
}

void terminal_resize(int master, uint16_t rows, uint16_t cols)
{
    struct winsize size = {.ws_row = rows, .ws_col = cols};
    if (ioctl(master, TIOCSWINSZ, &size) != 0)
        log_error("resizing a terminal: %m");
}

int terminal_end_character(int master)
{
    struct termios state; // the master answers for the other end
    if (tcgetattr(master, &state) != 0 || !(state.c_lflag & ICANON) || state.c_cc[VEOF] == _POSIX_VDISABLE)
        return -1;
    return state.c_cc[VEOF];
}
