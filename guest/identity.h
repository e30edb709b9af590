// What makes this machine this machine: entropy, host name, machine id.
#ifndef TRIO_SANDBOX_IDENTITY_H
#define TRIO_SANDBOX_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool identity_reseed(const uint8_t *entropy, size_t length); // false: errno
bool identity_set_hostname(const char *hostname);            // false: errno

// /etc/machine-id, /etc/hostname and /etc/hosts of the root. Failures are logged: an odd image may still run.
void identity_write_files(const char *hostname, const char *machine_id);

// For a template: makes those files and opens them, so that its clones only have to fill them in. They become empty,
// but for a hosts file that the image's maker wrote. Bringing a file of the base to the upper takes many times as long
// as writing to one that is there.
void identity_prepare_files(void);
void identity_close_files(void); // what is prepared and was never written: a file system with such files stays writable

#endif
