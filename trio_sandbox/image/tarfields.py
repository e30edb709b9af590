"""The fields of tar headers: numbers, checksums and PAX records, as hostile writers fill them in. No I/O."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol
from zlib import adler32

from trio_sandbox.image.faults import ImageFault

BLOCK = 512
"""Bytes of a header, and what all sizes in the stream are filled up to."""

XATTR_RECORD = b"SCHILY.xattr."
"""Before the name of an extended attribute, in the key of its PAX record."""

_ADLER_BASE = 65_521

Extents = tuple[tuple[int, int], ...]
"""Data of a sparse file: (offset in the file, length), ascending. The stored bytes are these, one after the other."""


class Source(Protocol):
    """A stream of a tar archive. Short reads happen only at its end."""

    position: int

    def read(self, amount: int, /) -> bytes: ...

    def skip(self, amount: int, /) -> None:
        """Move on. May leave the position beyond the end; the next read then is short."""
        ...


def is_intact(block: bytes, stated: int) -> bool:
    """Whether a header sums up to what it states, its own field taken as blanks."""
    own = sum(block[148:156]) - 8 * 32
    # The low half of an Adler checksum is one more than the sum of the bytes: twelve times as fast as sum().
    if ((adler32(block) & 0xFFFF) - 1 - own - stated) % _ADLER_BASE == 0:
        return True
    # Old writers summed signed characters.
    signed = sum(block) - own - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
    return signed == stated


@lru_cache(maxsize=4096)  # owners, modes and times are mostly those of the entry before
def number(field: bytes) -> int:
    """A numeric field that is not negative: octal digits, or base 256 when the top bit is set. Raises ImageFault."""
    value = signed_number(field)
    if value < 0:
        raise ImageFault("a number in a tar header is negative")
    return value


@lru_cache(maxsize=4096)
def signed_number(field: bytes) -> int:
    """A numeric field; in base 256 it may be negative. Raises ImageFault."""
    digits = field.rstrip(b"\0 ").lstrip(b" ")
    if digits.isdigit() and b"8" not in digits and b"9" not in digits:
        return int(digits, 8)
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        if field[0] & 0x40:
            value -= 1 << 8 * len(field) - 1
        return value
    digits = field.partition(b"\0")[0].strip(b" ")  # some writers leave garbage after the NUL
    if not digits:
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise ImageFault(f"a number in a tar header is damaged: {field!r}")
    return int(digits, 8)


def decimal(text: bytes) -> int:
    """A number of a PAX record. Raises ImageFault."""
    if not text.isdigit() or len(text) > 20:
        raise ImageFault(f"a number in a PAX record is damaged: {text[:40]!r}")
    return int(text)


def seconds(text: bytes) -> int:
    """Whole seconds of a PAX time, which may be negative and have a fraction. Raises ImageFault."""
    sign = -1 if text.startswith(b"-") else 1
    return sign * decimal(text.removeprefix(b"-").partition(b".")[0])


def until_nul(field: bytes) -> bytes:
    """A text field without its filling."""
    return field.partition(b"\0")[0]


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """The records of a PAX extension: `length keyword=value\\n` each. The parts of sparse 0.0 become one map.

    A record without a value, which takes an earlier one back, is kept as b"".
    """
    records: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = decimal(data[at:space]) if space > 0 else 0
        record = data[space + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if at + length > len(data) or not equals or record[-1:] != b"\n" or not key:
            raise ImageFault("a PAX record is damaged")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(value)
        else:
            records[key] = value
        at += length
    if sparse:
        records[b"GNU.sparse.map"] = b",".join(sparse)
    return records


def pax_record(key: bytes, value: bytes) -> bytes:
    """One record of a PAX extension."""
    body = len(key) + len(value) + 3
    length = body + len(str(body))
    if len(str(length)) > len(str(body)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)
