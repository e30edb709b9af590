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
    static int fd = -1; // stays open: a clone has none of its kernel's code translated yet, so every call costs
    if (fd < 0 && (fd = open("/dev/urandom", O_RDWR | O_CLOEXEC)) < 0)
        return false;
    // Credit alone changes nothing for a while: the running generator has to be told to take a new key from the pool.
    bool done = ioctl(fd, ADD_ENTROPY, &info) == 0 && ioctl(fd, RESEED) == 0;
    int saved = errno;
    explicit_bzero(&info, sizeof info);
    errno = saved;
    return done;
}

bool identity_set_hostname(const char *hostname)
{
    return sethostname(hostname, strlen(hostname)) == 0;
}

enum { MACHINE_ID, HOSTNAME, HOSTS, FILES };
static const char *const paths[FILES] = {"/etc/machine-id", "/etc/hostname", "/etc/hosts"};
static struct {
    bool prepared;
    int fd; // -1: to be left alone
} files[FILES];

// True for a hosts file that is missing, empty, or still as we wrote it.
static bool hosts_are_ours(void)
{
    char text[sizeof hosts_mark];
    ssize_t length = read_small_file(-1, paths[HOSTS], text, sizeof text);
    return length <= 0 || strncmp(text, hosts_mark, sizeof hosts_mark - 2) == 0;
}

static void open_file(int file)
{
    files[file].fd = -1;
    if (file == HOSTS && !hosts_are_ours())
        return;
    files[file].fd = open_emptied(paths[file]);
    if (files[file].fd < 0)
        log_info("%s is left alone: %m", paths[file]);
}

static void write_file(int file, const char *text)
{
    if (!files[file].prepared)
        open_file(file);
    if (files[file].fd >= 0 && !write_and_close(files[file].fd, text))
        log_info("%s: %m", paths[file]);
    files[file].prepared = false;
}

static void make_folder(void)
{
    if (mkdir("/etc", 0755) != 0 && errno != EEXIST)
        log_info("/etc: %m");
}

void identity_write_files(const char *hostname, const char *machine_id)
{
    char text[sizeof hosts_mark + HOSTNAME_MAX + 200];
    if (!files[MACHINE_ID].prepared)
        make_folder();
    snprintf(text, sizeof text, "%s\n", machine_id);
    write_file(MACHINE_ID, text);
    snprintf(text, sizeof text, "%s\n", hostname);
    write_file(HOSTNAME, text);
    snprintf(text, sizeof text, "%s127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t%s\n",
             hosts_mark, hostname);
    write_file(HOSTS, text);
}

void identity_prepare_files(void)
{
    make_folder();
    for (int file = 0; file < FILES; file++) {
        write_file(file, ""); // closed once, so that nothing is left to be done at the close that a clone waits for
        open_file(file);
        files[file].prepared = true;
    }
}

void identity_close_files(void)
{
    for (int file = 0; file < FILES; file++) {
        if (files[file].prepared && files[file].fd >= 0)
            close(files[file].fd);
        files[file].prepared = false;
    }
}
