#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 4 * 1024 * 1024, FIELDS = 7 };

// The whole file, terminated; an empty one when it is missing. NULL: errno. Never freed: the child soon execs or exits.
static char *read_database(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? calloc(1, 1) : NULL;
    struct stat status;
    if (fstat(fd, &status) != 0)
        return NULL;
    if (!S_ISREG(status.st_mode) || status.st_size > FILE_MAX) {
        errno = EINVAL;
        return NULL;
    }
    size_t size = (size_t)status.st_size, length = 0;
    char *text = malloc(size + 1);
    if (!text)
        return NULL;
    for (ssize_t count; length < size && (count = read(fd, text + length, size - length)) != 0;) {
        if (count < 0)
            return NULL;
        length += (size_t)count;
    }
    close(fd);
    text[length] = '\0';
    return text;
}

// Cuts the next line of *text into its fields. Fields that are missing are "". False at the end.
static bool next_line(char **text, char *fields[FIELDS])
{
    char *line = *text;
    if (!line || !*line)
        return false;
    char *end = strchr(line, '\n');
    if (end)
        *end = '\0';
    *text = end ? end + 1 : NULL;
    for (int i = 0; i < FIELDS; i++) {
        char *colon = i < FIELDS - 1 ? strchr(line, ':') : NULL;
        fields[i] = line;
        if (colon)
            *colon = '\0';
        line = colon ? colon + 1 : line + strlen(line);
    }
    return true;
}

static bool parse_id(const char *text, uint32_t *id)
{
    if (!*text || strlen(text) > 10 || text[strspn(text, "0123456789")])
        return false;
    uint64_t number = strtoull(text, NULL, 10);
    *id = (uint32_t)number;
    return number < UINT32_MAX; // the last one means "leave as it is"
}

// True when /etc/passwd lists the user by this name or, failing that, by this number.
static bool find_user(char *text, const char *wanted, struct user *user, char *name, size_t name_size)
{
    char *fields[FIELDS];
    uint32_t uid, gid, wanted_uid = 0;
    bool by_number = parse_id(wanted, &wanted_uid), found = false;
    while (next_line(&text, fields)) {
        if (!parse_id(fields[2], &uid) || !parse_id(fields[3], &gid))
            continue;
        bool same_name = strcmp(fields[0], wanted) == 0;
        if (!same_name && !(by_number && !found && uid == wanted_uid))
            continue;
        if (strlen(fields[0]) >= name_size || strlen(fields[5]) >= sizeof user->home)
            continue;
        user->uid = uid;
        user->gid = gid;
        strcpy(name, fields[0]);
        strcpy(user->home, fields[5]);
        found = true;
        if (same_name)
            return true;
    }
    return found;
}

static bool find_group(char *text, const char *wanted, gid_t *gid)
{
    char *fields[FIELDS];
    uint32_t id;
    while (next_line(&text, fields))
        if (strcmp(fields[0], wanted) == 0 && parse_id(fields[2], &id)) {
            *gid = id;
            return true;
        }
    return parse_id(wanted, gid);
}

static bool lists_member(char *members, const char *name)
{
    size_t length = strlen(name);
    for (char *at = members; *at;) {
        size_t member = strcspn(at, ",");
        if (member == length && memcmp(at, name, length) == 0)
            return true;
        at += member + (at[member] == ',');
    }
    return false;
}

static void add_group(struct user *user, gid_t gid)
{
    for (size_t i = 0; i < user->group_count; i++)
        if (user->groups[i] == gid)
            return;
    if (user->group_count < GROUPS_MAX)
        user->groups[user->group_count++] = gid;
}

static void add_memberships(char *text, const char *name, struct user *user)
{
    char *fields[FIELDS];
    uint32_t gid;
    while (next_line(&text, fields))
        if (parse_id(fields[2], &gid) && lists_member(fields[3], name))
            add_group(user, gid);
}

enum { SPEC_MAX = 256 };

struct spec {
    char user[SPEC_MAX];   // "" where only a group is named
    const char *group;     // NULL without a colon
    char *passwd, *groups; // the databases
};

static bool open_spec(const char *text, struct spec *spec)
{
    size_t length = strcspn(text, ":");
    spec->group = text[length] ? text + length + 1 : NULL;
    if (length >= sizeof spec->user || (spec->group && !*spec->group)) {
        errno = EINVAL;
        return false;
    }
    memcpy(spec->user, text, length);
    spec->user[length] = '\0';
    spec->passwd = read_database("/etc/passwd");
    spec->groups = spec->passwd ? read_database("/etc/group") : NULL;
    return spec->groups;
}

bool user_resolve(const char *text, struct user *user)
{
    struct spec spec;
    char name[SPEC_MAX];
    *user = (struct user){0};
    if (*text == ':') {
        errno = EINVAL;
        return false;
    }
    if (!open_spec(text, &spec))
        return false;
    const char *who = *spec.user ? spec.user : "0";
    bool known = find_user(spec.passwd, who, user, name, sizeof name);
    if ((!known && !parse_id(who, &user->uid)) || (spec.group && !find_group(spec.groups, spec.group, &user->gid))) {
        errno = ENOENT;
        return false;
    }
    add_group(user, user->gid);
    if (known && !spec.group) // a group that was asked for stands alone, as with container runtimes
        add_memberships(spec.groups, name, user);
    return true;
}

bool owner_resolve(const char *text, uid_t *uid, gid_t *gid)
{
    struct spec spec;
    struct user user;
    char name[SPEC_MAX];
    *uid = (uid_t)-1;
    *gid = (gid_t)-1;
    if (!open_spec(text, &spec))
        return false;
    errno = ENOENT;
    if (*spec.user) {
        if (!find_user(spec.passwd, spec.user, &user, name, sizeof name) && !parse_id(spec.user, &user.uid))
            return false;
        *uid = user.uid;
    }
    return !spec.group || find_group(spec.groups, spec.group, gid);
}

bool user_become(const struct user *user)
{
    return setgroups(user->group_count, user->groups) == 0 && setresgid(user->gid, user->gid, user->gid) == 0 &&
           setresuid(user->uid, user->uid, user->uid) == 0;
}
