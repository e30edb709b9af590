"""Writing tar entries: ustar headers, with PAX records where a field does not fit. The same arguments make the same
bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from zlib import adler32

from trio_sandbox.image.tarfields import BLOCK, XATTR_RECORD, pax_record
from trio_sandbox.image.tarformat import Kind, Xattrs

END_OF_ARCHIVE = bytes(2 * BLOCK)

_MAX_OCTAL_ID = 0o7777777
_MAX_OCTAL_SIZE = 0o77777777777


def write_header(
    name: bytes,
    kind: Kind,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    size: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: Xattrs = (),
    more: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """The header of an entry, its PAX extension before it if one is needed. `size` bytes and padding must follow. more:
    other PAX records.
    """
    records = [*more, *((XATTR_RECORD + key, value) for key, value in xattrs)]
    if len(name) > 100:
        records.append((b"path", name))
    if len(link) > 100:
        records.append((b"linkpath", link))
    if size > _MAX_OCTAL_SIZE:
        records.append((b"size", b"%d" % size))
    if uid > _MAX_OCTAL_ID:
        records.append((b"uid", b"%d" % uid))
    if gid > _MAX_OCTAL_ID:
        records.append((b"gid", b"%d" % gid))
    header = _block(
        name[:100],
        _owner(mode, uid if uid <= _MAX_OCTAL_ID else 0, gid if gid <= _MAX_OCTAL_ID else 0),
        size if size <= _MAX_OCTAL_SIZE else 0,
        mtime,
        kind.value,
        link[:100],
        _device(*device),
    )
    if not records:
        return header
    data = b"".join(pax_record(key, value) for key, value in records)
    extension = _block(b"pax", _owner(0o644, 0, 0), len(data), 0, b"x", b"", _device(0, 0))
    return extension + data + padding(len(data)) + header


def padding(size: int) -> bytes:
    """What follows `size` bytes of payload to fill the last block."""
    return bytes(-size % BLOCK)


@lru_cache(maxsize=1024)
def _owner(mode: int, uid: int, gid: int) -> bytes:
    return b"%07o\0%07o\0%07o\0" % (mode, uid, gid)


@lru_cache(maxsize=256)
def _device(major: int, minor: int) -> bytes:
    """The fields from the magic to the device's numbers."""
    return b"ustar\x0000" + bytes(64) + b"%07o\0%07o\0" % (major, minor)


_REST = bytes(167)


def _block(name: bytes, owner: bytes, size: int, mtime: int, flag: bytes, link: bytes, device: bytes) -> bytes:
    head = b"%b%b%011o\0%011o\0" % (name.ljust(100, b"\0"), owner, size, mtime)
    tail = b"%b%b%b" % (flag, link.ljust(100, b"\0"), device)
    return b"%b%06o\0 %b%b" % (head, _sum(head + tail) + 8 * ord(" "), tail, _REST)


def _sum(text: bytes) -> int:
    # The low half of an Adler checksum is one more than the sum, if that is below 65521, as that of ASCII is here.
    return (adler32(text) & 0xFFFF) - 1 if text.isascii() else sum(text)
