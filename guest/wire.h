// The numbers of docs/wire.md. No code: the codec is in frames.c.
#ifndef TRIO_SANDBOX_WIRE_H
#define TRIO_SANDBOX_WIRE_H

#include <stddef.h>
#include <stdint.h>

enum {
    WIRE_VERSION = 1,
    HEADER_SIZE = 16,
    BODY_MAX = 64 * 1024,   // of one frame, the header not counted
    MAP_MAX = 1024 * 1024,  // of a map joined from its parts: EXEC, FS, EMIT
    WINDOW = 256 * 1024,    // largest credit of a session, once for each direction
    BULK_MAX = 128 * 1024,  // output of commands that may wait in the agent, headers included
    PING_MAX = 64,          // body of a PING
    ARGV_MAX = 4096,        // strings in argv
    ENV_MAX = 65536,        // strings in env
    RLIMITS_MAX = 32,       // entries in rlimits
    ENTROPY_MIN = 32,       // bytes in CONFIGURE
    ENTROPY_MAX = 512,      //
    HOSTNAME_MAX = 64,      // bytes
    MACHINE_ID_LENGTH = 32, // hex digits
    SERIAL_MAX = 20,        // bytes: VIRTIO_BLK_ID_BYTES
    FSTYPE_MAX = 16,        // bytes
    SESSIONS_MAX = 1088,    // open at once: 16 clients with 64 each, and 64 that survive theirs
    PATH_BYTES_MAX = 4096,  // of a path in FS, its NUL not counted
    OWNER_BYTES_MAX = 512,  // of user and owner in FS
    EVENT_NAME_MAX = 128,   // bytes
    EVENT_MAX = 64 * 1024,  // bytes of an event's payload
    WARM_MAX = 64,          // patterns in CONFIGURE
    WARM_PATTERN_MAX = 256, // bytes of one
    SILENCE_MAX_S = 10, // guest time from HELLO to CONFIGURE, from a template's READY to IDENTIFY, and from FROZEN on
};

enum frame_type {
    HELLO = 0x01,
    CONFIGURE = 0x02,
    READY = 0x03,
    BOOT_FAILED = 0x04,
    PING = 0x05,
    PONG = 0x06,
    SHUTDOWN = 0x07,
    GOODBYE = 0x08,
    CLOCK = 0x09,
    CLIENT_GONE = 0x0a,
    IDENTIFY = 0x0b,
    FREEZE = 0x0c,
    FROZEN = 0x0d,
    THAW = 0x0e,
    ERROR = 0x0f,
    EXEC = 0x10,
    STARTED = 0x11,
    FAILED = 0x12,
    STDIN = 0x13,
    STDOUT = 0x14,
    STDERR = 0x15,
    EXITED = 0x16,
    SIGNAL = 0x17,
    KILL = 0x18,
    CREDIT = 0x19,
    STDIN_CLOSED = 0x1a,
    RESIZE = 0x1b,
    DEADLINE = 0x1c,
    FS = 0x1d,
    DONE = 0x1e,
    EMIT = 0x1f,
    SUBSCRIBE = 0x20,
    FRAME_TYPES = 0x21, // one more than the last
};

enum frame_flag {
    FLAG_END = 1,  // nothing follows on this stream
    FLAG_MORE = 2, // this control message continues in the next frame of the session
};

struct header {
    uint32_t length;
    uint8_t type;
    uint8_t flags;
    uint16_t slot;
    uint32_t session;
};

#endif
