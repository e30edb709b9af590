"""Snapshots into archives: one tar stream, compressed by gzip, that any tar unpacks. Sync.

NAME/snapshot.json      first
NAME/upper.ext4, …      sparse (PAX 1.0), by name
image.tar               with `with_image`: the image beneath, as an OCI archive
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from isal import isal_zlib

from trio_sandbox.errors import InvalidConfigError, SnapshotError
from trio_sandbox.files import anonymous_file, publish, storage_errors, write_all
from trio_sandbox.image.tarformat import Kind
from trio_sandbox.image.tarwriter import END_OF_ARCHIVE, padding, write_header
from trio_sandbox.snapshot.content import GRANULE, Proceed, digest_of, granules, on, read_exactly
from trio_sandbox.snapshot.description import DESCRIPTION_FILE, name_problem
from trio_sandbox.snapshot.store import Artifact

IMAGE_MEMBER = "image.tar"
LEVEL = 1
"""Of compression, of isal's 0 to 3: 0 is hardly faster, and 2 hardly smaller."""
MAX_EXTENTS = 16_384
"""Parts of a sparse file. Readers take a map of a mebibyte."""
FILE_MODE = 0o600
PIECE = 1 << 20


def save(artifact: Artifact, target: Path, image: int | None = None, proceed: Proceed = on) -> None:
    """Write a snapshot to a new file, which gets the name `target` when it is whole, in the place of one that has it.
    image: an open file, of the OCI archive that goes with it.

    Raises SnapshotError for one that is damaged, InvalidConfigError, StorageError. When `proceed` raises, nothing is
    left.
    """
    if not target.parent.is_dir():
        raise InvalidConfigError([f"archive: there is no folder {str(target.parent)!r}"])
    if target.is_dir():
        raise InvalidConfigError([f"archive: {str(target)!r} is a folder"])
    descriptor = anonymous_file(target.parent)
    try:
        with artifact.opened() as files, storage_errors(target.parent):
            stream = _Gzip(descriptor)
            _write(artifact, files, stream, proceed)
            if image is not None:
                size = os.fstat(image).st_size
                stream.write(write_header(IMAGE_MEMBER.encode(), Kind.FILE, mode=FILE_MODE, size=size))
                _copy(image, [(0, size)], stream, proceed)
            stream.write(END_OF_ARCHIVE)
            stream.finish()
        publish(descriptor, target)
    finally:
        os.close(descriptor)


@attrs.define(eq=False)
class _Gzip:
    """Compresses what is written, into an open file. The same bytes for the same bytes."""

    descriptor: int
    _compressor: Any = attrs.field(factory=lambda: isal_zlib.compressobj(LEVEL, wbits=31))

    def write(self, data: bytes) -> None:
        write_all(self.descriptor, self._compressor.compress(data))

    def finish(self) -> None:
        write_all(self.descriptor, self._compressor.flush())


def _write(artifact: Artifact, files: Mapping[str, int], stream: _Gzip, proceed: Proceed) -> None:
    # A folder that somebody has moved may have any name.
    folder = artifact.name if name_problem(artifact.name) is None else "snapshot"
    data = artifact.description.to_bytes()
    stream.write(write_header(f"{folder}/{DESCRIPTION_FILE}".encode(), Kind.FILE, mode=FILE_MODE, size=len(data)))
    stream.write(data + padding(len(data)))
    for name, descriptor in sorted(files.items()):
        if digest_of(descriptor, proceed) != artifact.description.files[name].digest:
            raise SnapshotError(str(artifact.path), f"{name} is damaged")
        extents = _extents(descriptor, proceed)
        head = _map(extents)
        size = os.fstat(descriptor).st_size
        records = [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", f"{folder}/{name}".encode()),
            (b"GNU.sparse.realsize", b"%d" % size),
        ]
        stored = len(head) + sum(length for _, length in extents)
        inner = f"{folder}/GNUSparseFile.0/{name}".encode()
        stream.write(write_header(inner, Kind.FILE, mode=FILE_MODE, size=stored, more=records))
        stream.write(head)
        _copy(descriptor, extents, stream, proceed)


def _extents(descriptor: int, proceed: Proceed) -> list[tuple[int, int]]:
    """Where data is: offsets and lengths, ascending, not too many."""
    extents: list[tuple[int, int]] = []
    for index, data in granules(descriptor, proceed):
        _join(extents, index * GRANULE, len(data), gap=0)
    gap = GRANULE
    while len(extents) > MAX_EXTENTS:
        fewer: list[tuple[int, int]] = []
        for start, length in extents:
            _join(fewer, start, length, gap)
        extents, gap = fewer, 2 * gap
    return extents


def _join(extents: list[tuple[int, int]], start: int, length: int, gap: int) -> None:
    """Add a part, to the one before if no more than `gap` bytes are between them."""
    if extents and start - sum(extents[-1]) <= gap:
        first = extents[-1][0]
        extents[-1] = (first, start + length - first)
    else:
        extents.append((start, length))


def _map(extents: list[tuple[int, int]]) -> bytes:
    numbers = [len(extents), *(number for extent in extents for number in extent)]
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + padding(len(text))


def _copy(descriptor: int, extents: list[tuple[int, int]], stream: _Gzip, proceed: Proceed) -> None:
    """Write those parts of a file, filled up to whole blocks."""
    for start, length in extents:
        for offset in range(start, start + length, PIECE):
            proceed()
            stream.write(read_exactly(descriptor, min(PIECE, start + length - offset), offset))
    stream.write(padding(sum(length for _, length in extents)))
