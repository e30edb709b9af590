"""The maps of sparse files in tar archives: GNU's old one, and PAX 0.0, 0.1 and 1.0.

A map is a flat list of numbers: where data begins, and how much there is, in turn. What is wrong raises ImageFault.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.limits import MAX_EXTENDED_HEADER_BYTES, MAX_SPARSE_EXTENTS
from trio_sandbox.image.tarfields import BLOCK, Extents, Source, decimal, number

SPARSE_RECORD = b"GNU.sparse."
"""Before the names of the PAX records that make a file sparse."""


def read_gnu_map(source: Source, header: bytes) -> tuple[list[int], int]:
    """The map and the whole size in a header of type S, the map's continuation read from the stream."""
    numbers = [number(header[at : at + 12]) for at in range(386, 482, 12)]
    more = header[482]
    while more:
        if len(numbers) > 2 * MAX_SPARSE_EXTENTS:
            raise ImageFault(f"a sparse file has more than {MAX_SPARSE_EXTENTS} parts")
        block = source.read(BLOCK)
        if len(block) < BLOCK:
            raise ImageFault("the map of a sparse file is cut off")
        numbers += [number(block[at : at + 12]) for at in range(0, 504, 12)]
        more = block[504]
    return numbers, number(header[483:495])


def read_pax_map(source: Source, records: Mapping[bytes, bytes], stored: int) -> tuple[list[int], int]:
    """The map and the whole size by PAX records; a map of version 1.0 is taken off the head of the `stored` bytes."""
    size = decimal(records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size") or b"")
    if records.get(b"GNU.sparse.major") == b"1":
        return _read_map_before_data(source, stored), size
    text = records.get(b"GNU.sparse.map", b"")
    if text.count(b",") > 2 * MAX_SPARSE_EXTENTS:
        raise ImageFault(f"a sparse file has more than {MAX_SPARSE_EXTENTS} parts")
    return [decimal(digits) for digits in text.split(b",") if digits], size


def _read_map_before_data(source: Source, stored: int) -> list[int]:
    """Decimal lines, the first of which counts the pairs that follow, filled up to whole blocks."""
    text = bytearray()
    lines, wanted = 0, 1
    while lines < wanted:
        block = source.read(BLOCK)
        if len(block) < BLOCK or len(text) + BLOCK > min(stored, MAX_EXTENDED_HEADER_BYTES):
            raise ImageFault("the map of a sparse file is damaged or cut off")
        text += block
        lines += block.count(b"\n")
        if wanted == 1 and lines:
            pairs = decimal(bytes(text[: text.index(b"\n")]))
            if pairs > MAX_SPARSE_EXTENTS:
                raise ImageFault(f"a sparse file has {pairs} parts; {MAX_SPARSE_EXTENTS} are allowed")
            wanted = 2 * pairs + 1
    return [decimal(line) for line in bytes(text).split(b"\n")[1:wanted]]


def extents_of(numbers: list[int], size: int, stored: int) -> Extents:
    """The parts that hold data, checked: ascending, inside the file of `size` bytes, and `stored` bytes together."""
    if len(numbers) % 2:
        raise ImageFault("the map of a sparse file is damaged")
    parts = tuple((start, length) for start, length in zip(numbers[::2], numbers[1::2], strict=True) if length)
    if any(start + length > after for (start, length), (after, _) in pairwise(parts)):
        raise ImageFault("the parts of a sparse file overlap")
    if (parts and sum(parts[-1]) > size) or sum(length for _, length in parts) != stored:
        raise ImageFault("the map of a sparse file does not fit its data")
    return parts
