// The first steps of PID 1, before there is anybody to talk to. Each returns NULL, or what failed (errno).
#ifndef TRIO_SANDBOX_BOOT_H
#define TRIO_SANDBOX_BOOT_H

const char *boot_mount(void);                        // /dev, /proc, /sys, cgroup2
const char *boot_load_modules(void);                 // /modules/*.ko in the order of their names
const char *boot_load_file_system(const char *type); // /modules/TYPE/*.ko, when a disk turns out to need it
const char *boot_loopback(void);
const char *boot_priority(void); // the agent goes before the commands, which do not inherit that

#endif
