"""Is this a qcow2 image, whole, and one that a machine may boot from? Reads the header and the mapping tables.

The image may come from anyone, and may name other files that the VMM would open: a backing file, or one for the data.
Nothing of it is opened here. What is wrong raises ImageFault. The layout is that of QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import struct
from array import array

import attrs

from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.limits import MIB
from trio_sandbox.image.progress import Meter
from trio_sandbox.image_source import DiskImageFormat

MAGIC = b"QFI\xfb"
MAX_TABLE_BYTES = 16 * MIB
"""Of mapping tables that are looked at: those of 128 GiB of data in clusters of the usual 64 KiB. QEMU checks each one
when it is used; this is for finding a file that was cut before the guest does.
"""
MAX_NAME = 1023

_HEADER = struct.Struct(">4sIQIIQIIQQI")
_HEADER_3 = struct.Struct(">72xQQQII")
_BITS_DIRTY, _BITS_CORRUPT, _BITS_DATA_FILE, _BITS_COMPRESSION, _BITS_WIDE_TABLES = (1 << bit for bit in range(5))
_BITS_KNOWN = _BITS_DIRTY | _BITS_COMPRESSION | _BITS_WIDE_TABLES
_END, _BACKING_FORMAT, _DATA_FILE = 0, 0xE2792ACA, 0x44415441
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62


@attrs.frozen
class Backing:
    """The file beneath an image, as its header names it."""

    name: str
    format: DiskImageFormat


@attrs.frozen
class _Header:
    cluster_bits: int
    size: int
    l1_size: int
    l1_offset: int
    has_wide_tables: bool
    backing: Backing | None

    @property
    def cluster(self) -> int:
        return 1 << self.cluster_bits

    @property
    def entry_words(self) -> int:
        """Numbers of 64 bits in one entry of the second-level tables."""
        return 2 if self.has_wide_tables else 1


def check_qcow2(file: Blob, meter: Meter) -> Backing | None:
    """What the image stands on, if it does. Raises ImageFault. Blocks; `meter` notices cancellation."""
    header = _read_header(file)
    _check_tables(file, header, meter)
    return header.backing


def _read_header(file: Blob) -> _Header:
    start = file.read_at(0, 1 << 16)
    if not start.startswith(MAGIC) or len(start) < 104:
        raise ImageFault("it is no qcow2 image")
    _, version, name_at, name_size, bits, size, encrypted, l1_size, l1_offset, refcounts, refcount_clusters = (
        _HEADER.unpack_from(start)
    )
    if version not in (2, 3):
        raise ImageFault(f"it is a qcow2 image of version {version}; 2 and 3 are known")
    features, _, _, _, length = _HEADER_3.unpack_from(start) if version == 3 else (0, 0, 0, 4, 72)
    if encrypted:
        raise ImageFault("it is encrypted, which is not supported")
    if features & _BITS_DATA_FILE:
        raise ImageFault("its data is in another file, which is not supported; convert it with `qemu-img convert`")
    if features & _BITS_CORRUPT:
        raise ImageFault("it is marked as damaged; `qemu-img check -r all` may repair it")
    if features & ~_BITS_KNOWN:
        raise ImageFault(f"it has features that are not known here ({features & ~_BITS_KNOWN:#x})")
    if not 9 <= bits <= 21 or not 0 < size < 1 << 62:
        raise ImageFault("its header is damaged: an impossible size")
    if not refcounts or refcounts % (1 << bits) or refcounts + (refcount_clusters << bits) > file.size:
        raise ImageFault("its header is damaged, or the file was cut: no reference counts where they should be")
    if length < 72 or length % 8 or length > min(len(start), 1 << bits):
        raise ImageFault("its header is damaged: an impossible length")
    extensions = _read_extensions(start[: 1 << bits], length, name_at)
    backing = _read_backing(start[: 1 << bits], name_at, name_size, extensions) if name_at else None
    return _Header(bits, size, l1_size, l1_offset, bool(features & _BITS_WIDE_TABLES), backing)


def _read_extensions(start: bytes, at: int, name_at: int) -> dict[int, bytes]:
    """What follows the header, up to the backing file's name or the end of the first cluster."""
    found: dict[int, bytes] = {}
    end = name_at if 0 < name_at <= len(start) else len(start)
    while at + 8 <= end:
        kind, size = struct.unpack_from(">II", start, at)
        if kind == _END:
            break
        if size > end - at - 8:
            raise ImageFault("its header is damaged: an extension goes beyond its end")
        found[kind] = start[at + 8 : at + 8 + size]
        at += 8 + size + -size % 8
    if _DATA_FILE in found:
        raise ImageFault("its data is in another file, which is not supported; convert it with `qemu-img convert`")
    return found


def _read_backing(start: bytes, at: int, size: int, extensions: dict[int, bytes]) -> Backing:
    if not 0 < size <= MAX_NAME or at + size > len(start):
        raise ImageFault("its header is damaged: an impossible name of its backing file")
    name = start[at : at + size].decode("utf-8", "surrogateescape")
    said = extensions.get(_BACKING_FORMAT, b"").decode("ascii", "replace")
    if said not in list(DiskImageFormat):
        what = f"is of the format {said!a}" if said else "has a format that its header does not tell"
        raise ImageFault(f"its backing file {name!a} {what}; `qemu-img rebase -u -F FORMAT -b FILE` can set it")
    return Backing(name, DiskImageFormat(said))


def _check_tables(file: Blob, header: _Header, meter: Meter) -> None:
    """All that is mapped lies within the file, or it was cut. Stops after MAX_TABLE_BYTES of tables."""
    covered = header.cluster * (header.cluster // 8 // header.entry_words)
    needed = -(-header.size // covered)
    if header.l1_size < needed or header.l1_size * 8 > 2 * MAX_TABLE_BYTES:
        raise ImageFault("its header is damaged: an impossible size of its mapping table")
    end = header.l1_offset + header.l1_size * 8
    if not header.l1_offset or header.l1_offset % header.cluster or end > file.size:
        raise ImageFault("its header is damaged, or the file was cut: no mapping table where it should be")
    left = MAX_TABLE_BYTES
    for entry in _numbers(file, header.l1_offset, header.l1_size * 8):
        if not (offset := entry & _OFFSET):
            continue
        if offset % header.cluster or offset + header.cluster > file.size:
            raise ImageFault("it is damaged, or the file was cut: a mapping table lies beyond its end")
        if left <= 0:
            return
        left -= header.cluster
        meter.add(header.cluster)
        _check_table(_numbers(file, offset, header.cluster)[:: header.entry_words], file, header)


def _check_table(table: array[int], file: Blob, header: _Header) -> None:
    packed = (1 << (62 - (header.cluster_bits - 8))) - 1
    for entry in table:
        offset = entry & (packed if entry & _COMPRESSED else _OFFSET)
        if offset >= file.size:
            raise ImageFault("the file was cut: data that it should have lies beyond its end")
        if offset % header.cluster and not entry & _COMPRESSED:
            raise ImageFault("it is damaged: data is mapped to an impossible place")


def _numbers(file: Blob, offset: int, size: int) -> array[int]:
    """Big-endian numbers of 64 bits."""
    numbers = array("Q", file.read_at(offset, size))
    if struct.pack("=H", 1) != struct.pack(">H", 1):
        numbers.byteswap()
    return numbers
