#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int log_fd = STDERR_FILENO;

void log_to_kernel(void)
{
    int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0)
        log_fd = fd;
}

// One write is one line of the kernel's log. The digit is the kernel's level: a quiet console shows errors only.
static void write_line(char level, const char *format, va_list arguments)
{
    char line[512];
    int length = 0;
    if (log_fd != STDERR_FILENO)
        length = snprintf(line, sizeof line, "<%c>", level);
    length += snprintf(line + length, sizeof line - (size_t)length, "trio_sandbox: ");
    int room = (int)sizeof line - length - 1;
    int text = vsnprintf(line + length, (size_t)room, format, arguments);
    length += text < 0 ? 0 : text < room ? text : room - 1;
    line[length++] = '\n';
    ssize_t written = write(log_fd, line, (size_t)length);
    (void)written; // there is nowhere to complain
}

void log_error(const char *format, ...)
{
    int saved = errno;
    va_list arguments;
    va_start(arguments, format);
    write_line('3', format, arguments);
    va_end(arguments);
    errno = saved;
}

void log_info(const char *format, ...)
{
    int saved = errno;
    va_list arguments;
    va_start(arguments, format);
    write_line('6', format, arguments);
    va_end(arguments);
    errno = saved;
}
