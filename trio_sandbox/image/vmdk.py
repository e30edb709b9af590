"""Is this a VMDK image in one file, whole, and one that a machine may boot from? Reads header, description and tables.

Of the many kinds of VMDK only `monolithicSparse` can be a root: all others name further files, which nothing here opens
and the VMM must not, or cannot be written in place. What is wrong raises ImageFault.
"""

from __future__ import annotations

import re
import struct
from array import array

from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.limits import MIB
from trio_sandbox.image.progress import Meter

MAGIC = b"KDMV"
DESCRIPTION_MAGIC = b"# Disk DescriptorFile"
SECTOR = 512
KIND = "monolithicSparse"
MAX_DESCRIPTION = 20 * SECTOR
MAX_TABLE_BYTES = 16 * MIB
"""As for qcow2: the tables of 256 GiB of data."""
CONVERT = "convert it with `qemu-img convert -O qcow2`"

_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_COMPRESSED, _ENTRIES = 1 << 16, 512
_LINE = re.compile(r'^\s*(createType|parentCID)\s*=\s*"?([^"\r\n]*?)"?\s*$', re.MULTILINE)


def check_vmdk(file: Blob, meter: Meter) -> None:
    """Raises ImageFault. Blocks; `meter` notices cancellation."""
    start = file.read_at(0, SECTOR)
    if start.startswith(DESCRIPTION_MAGIC):
        raise ImageFault(f"it only describes other files that hold the disk; {CONVERT}")
    if not start.startswith(MAGIC) or len(start) < SECTOR:
        raise ImageFault("it is no VMDK image")
    (_, version, flags, sectors, grain, described_at, _, entries, _, directory, _, _, _, compression) = (
        _HEADER.unpack_from(start)
    )
    if version not in (1, 2, 3):
        raise ImageFault(f"it is a VMDK image of version {version}; 1 to 3 are known")
    if flags & _COMPRESSED or compression or directory >= (1 << 64) - 1:
        raise ImageFault(f"it is compressed and cannot be written in place; {CONVERT}")
    if not 0 < sectors < 1 << 53 or not 0 < grain <= 1 << 16 or grain & (grain - 1) or entries != _ENTRIES:
        raise ImageFault("its header is damaged: an impossible size")
    if described_at != 1:
        raise ImageFault(f"it does not describe itself, as a part of a larger image does not; {CONVERT}")
    _check_description(file.read_at(SECTOR, MAX_DESCRIPTION))
    _check_tables(file, directory * SECTOR, -(-sectors // (grain * entries)), meter)


def _check_description(data: bytes) -> None:
    text = data.partition(b"\0")[0].decode("utf-8", "replace")
    said = dict(_LINE.findall(text))
    if said.get("createType") != KIND:
        raise ImageFault(
            f"it is of the kind {said.get('createType', '?')[:40]!a}; only {KIND} can be a root, {CONVERT}"
        )
    if said.get("parentCID", "").lower() != "ffffffff" or "parentFileNameHint" in text:
        raise ImageFault(f"it stands on another image, which is not supported; {CONVERT}")


def _check_tables(file: Blob, directory: int, count: int, meter: Meter) -> None:
    """All that is mapped lies within the file, or it was cut. Stops after MAX_TABLE_BYTES of tables."""
    if not directory or count * 4 > MAX_TABLE_BYTES or directory + count * 4 > file.size:
        raise ImageFault("its header is damaged, or the file was cut: no mapping table where it should be")
    for table in _numbers(file, directory, count * 4)[: MAX_TABLE_BYTES // (_ENTRIES * 4)]:
        if not table:
            continue
        if table * SECTOR + _ENTRIES * 4 > file.size:
            raise ImageFault("it is damaged, or the file was cut: a mapping table lies beyond its end")
        meter.add(_ENTRIES * 4)
        if max(_numbers(file, table * SECTOR, _ENTRIES * 4)) * SECTOR >= file.size:
            raise ImageFault("the file was cut: data that it should have lies beyond its end")


def _numbers(file: Blob, offset: int, size: int) -> array[int]:
    """Little-endian numbers of 32 bits."""
    numbers = array("I", file.read_at(offset, size))
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        numbers.byteswap()
    return numbers
