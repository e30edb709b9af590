#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "smallfile.h"
#include "wire.h"

// From the kernel's linux/random.h, which not every libc brings.
struct pool_info {
    int entropy_count; // bits
    int size;          // bytes
    uint8_t bytes[ENTROPY_MAX];
};
#define ADD_ENTROPY _IOW('R', 0x03, int[2])
#define RESEED _IO('R', 0x07)

static const char hosts_mark[] = "# Written at every start. Delete this line to keep your own version.\n";

bool identity_reseed(const uint8_t *entropy, size_t length)
{
    struct pool_info info = {.entropy_count = (int)length * 8, .size = (int)length};
    memcpy(info.bytes, entropy, length);
    int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    // Credit alone changes nothing for a while: the running generator has to be told to take a new key from the pool.
    bool done = ioctl(fd, ADD_ENTROPY, &info) == 0 && ioctl(fd, RESEED) == 0;
    int saved = errno;
    close(fd);
    explicit_bzero(&info, sizeof info);
    errno = saved;
    return done;
}

bool identity_set_hostname(const char *hostname)
{
    return sethostname(hostname, strlen(hostname)) == 0;
}

static void replace(const char *path, const char *text)
{
    if (!replace_file(path, text))
        log_info("%s is left alone: %m", path);
}

// True for a file that is missing, empty, or still as we wrote it.
static bool hosts_are_ours(void)
{
    char text[sizeof hosts_mark];
    ssize_t length = read_small_file(-1, "/etc/hosts", text, sizeof text);
    return length <= 0 || strncmp(text, hosts_mark, sizeof hosts_mark - 2) == 0;
}

void identity_write_files(const char *hostname, const char *machine_id)
{
    char text[sizeof hosts_mark + HOSTNAME_MAX + 200];
    if (mkdir("/etc", 0755) != 0 && errno != EEXIST)
        log_info("/etc: %m");
    snprintf(text, sizeof text, "%s\n", machine_id);
    replace("/etc/machine-id", text);
    snprintf(text, sizeof text, "%s\n", hostname);
    replace("/etc/hostname", text);
    snprintf(text, sizeof text, "%s127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t%s\n",
             hosts_mark, hostname);
    if (hosts_are_ours())
        replace("/etc/hosts", text);
}
