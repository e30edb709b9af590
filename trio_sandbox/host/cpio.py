"""Write a `newc` cpio archive, the format of an initial RAM file system. Sans-IO.

Deterministic: the same entries give the same bytes (time 0, owner root, inode numbers in order).
"""

from __future__ import annotations

import stat
from collections.abc import Iterable

import attrs

MAGIC = b"070701"
TRAILER = "TRAILER!!!"
BLOCK = 512
NAME_MAX = 4095
DATA_MAX = 0xFFFFFFFF


def _check_name(_: Entry, __: attrs.Attribute[str], name: str) -> None:
    parts = name.split("/")
    if not name or name.startswith("/") or "\0" in name or ".." in parts or "" in parts or name == TRAILER:
        raise ValueError(f"not a relative path: {name!r}")
    if len(name.encode()) > NAME_MAX:
        raise ValueError(f"the name is longer than {NAME_MAX} bytes: {name[:40]!r}…")


@attrs.frozen
class Entry:
    """One file, folder or device. `mode` holds type and permissions; `device` is (major, minor) of a device node."""

    name: str = attrs.field(validator=_check_name)
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(name: str, mode: int = 0o755) -> Entry:
    """A folder; parents must come before what is in them."""
    return Entry(name, stat.S_IFDIR | mode)


def file(name: str, data: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(name, stat.S_IFREG | mode, data)


def character_device(name: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    """A character device node; needs no privilege, being only bytes in the archive."""
    return Entry(name, stat.S_IFCHR | mode, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The whole archive, padded to 512 bytes as cpio's own are. Raises ValueError for a name that comes twice."""
    out = bytearray()
    seen: set[str] = set()
    for number, entry in enumerate(entries, start=1):
        if entry.name in seen:
            raise ValueError(f"{entry.name!r} comes twice")
        seen.add(entry.name)
        if len(entry.data) > DATA_MAX:
            raise ValueError(f"{entry.name!r} does not fit the format")
        _append(out, number, entry.name, entry.mode, entry.data, entry.device)
    _append(out, 0, TRAILER, 0, b"", (0, 0))
    _pad(out, BLOCK)
    return bytes(out)


def _append(out: bytearray, inode: int, name: str, mode: int, data: bytes, device: tuple[int, int]) -> None:
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    # ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(encoded), 0)
    out += MAGIC + b"".join(b"%08X" % value for value in fields) + encoded
    _pad(out, 4)
    out += data
    _pad(out, 4)


def _pad(out: bytearray, to: int) -> None:
    out += bytes(-len(out) % to)
