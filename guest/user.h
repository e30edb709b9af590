// Who a command runs as, from the sandbox's own /etc/passwd and /etc/group. Called in the child, which may read slowly.
#ifndef TRIO_SANDBOX_USER_H
#define TRIO_SANDBOX_USER_H

#include <stdbool.h>
#include <sys/types.h>

enum { GROUPS_MAX = 256, HOME_MAX = 512 };

struct user {
    uid_t uid;
    gid_t gid;
    gid_t groups[GROUPS_MAX]; // supplementary ones, the primary one among them
    size_t group_count;
    char home[HOME_MAX]; // "" when /etc/passwd does not know the user
};

// Resolves "name", "uid", "user:group" or "uid:gid"; "" is root. A number that /etc/passwd does not list is taken as it
// is, with group 0 if none is given. False: errno, which is ENOENT for a name that is not listed.
bool user_resolve(const char *spec, struct user *user);

// Resolves "user", "user:group" or ":group", names or numbers, for chown(2): (uid_t)-1 and (gid_t)-1 where nothing is
// asked. False: errno, as above.
bool owner_resolve(const char *spec, uid_t *uid, gid_t *gid);

// Makes the calling process this user, for good. False: errno.
bool user_become(const struct user *user);

#endif
