"""What listens in a guest, from the kernel's own tables in /proc/net. No I/O; no text raises anything."""

from __future__ import annotations

LISTEN = "0A"
"""TCP_LISTEN."""
ACCEPTS = 1 << 16
"""__SO_ACCEPTCON, in the flags of a Unix socket that listens."""


def has_port_untrusted(table: str, port: int) -> bool:
    """Whether /proc/net/tcp or tcp6 has a socket that listens on this port, of whatever address."""
    return any(
        len(fields) > 3 and fields[3] == LISTEN and _hex(fields[1].rpartition(":")[2]) == port
        for fields in map(str.split, table.splitlines())
    )


def has_path_untrusted(table: str, path: str) -> bool:
    """Whether /proc/net/unix has a socket that listens at this path."""
    return any(
        len(fields) == 8 and fields[7] == path and _hex(fields[3]) & ACCEPTS
        for fields in (line.split(None, 7) for line in table.splitlines())
    )


def _hex(text: str) -> int:
    try:
        return int(text, 16) if len(text) <= 16 else 0
    except ValueError:
        return 0
