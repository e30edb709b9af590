// What makes this machine this machine: entropy, host name, machine id.
#ifndef TRIO_SANDBOX_IDENTITY_H
#define TRIO_SANDBOX_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool identity_reseed(const uint8_t *entropy, size_t length); // false: errno
bool identity_set_hostname(const char *hostname);            // false: errno

// /etc/hostname, /etc/machine-id and /etc/hosts of the root. Failures are logged: an odd image may still run.
void identity_write_files(const char *hostname, const char *machine_id);

#endif
