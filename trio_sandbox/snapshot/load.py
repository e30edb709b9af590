"""Snapshots out of archives, which may have been made by anybody. Sync.

An archive is unpacked to files without names. They become a snapshot when all of it has been seen to be what its
description says; so one that is damaged leaves nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import attrs

from trio_sandbox.errors import SnapshotError, SnapshotNotFoundError
from trio_sandbox.files import anonymous_file, storage_errors
from trio_sandbox.home import Home
from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.faults import ImageFault, show
from trio_sandbox.image.layers import ChunkSource, compression_of, plain_chunks
from trio_sandbox.image.tarformat import Entry, Kind, read_entries
from trio_sandbox.snapshot.content import GRANULE, Proceed, digest_of, on
from trio_sandbox.snapshot.description import (
    DESCRIPTION_FILE,
    MAX_DESCRIPTION_BYTES,
    Description,
    SnapshotFault,
    name_problem,
)
from trio_sandbox.snapshot.save import IMAGE_MEMBER, PIECE
from trio_sandbox.snapshot.store import blame, folder_of

MAX_UNPACKED_BYTES = 64 << 30
"""Bytes that all members of an archive may have, holes not counted."""
_ZEROS = bytes(GRANULE)


@attrs.define(eq=False)
class Unpacked:
    """What was in an archive, in open files without names, until `close`. name: what the archive calls it."""

    path: Path
    files: dict[str, int] = attrs.field(factory=dict)
    image: int | None = None
    name: str = ""
    _description: Description | None = None

    @property
    def description(self) -> Description:
        """What `read` has found."""
        assert self._description is not None
        return self._description

    def close(self) -> None:
        """Nothing of it is left but what has been named."""
        for descriptor in (*self.files.values(), *([] if self.image is None else [self.image])):
            os.close(descriptor)
        self.files, self.image = {}, None

    def read(
        self,
        home: Home,
        proceed: Proceed = on,
        *,
        accept: Callable[[str], object] = lambda name: None,
        limit: int = MAX_UNPACKED_BYTES,
    ) -> None:
        """Unpack all of it. accept: called with its name, early; it raises when that cannot be. limit: bytes.

        Raises SnapshotError for an archive that is damaged, foreign or over a limit, SnapshotNotFoundError when there
        is no such file, StorageError.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SnapshotNotFoundError(str(self.path), "there is no such file") from None
        except OSError as error:
            raise SnapshotError(str(self.path), f"it cannot be opened: {error.strerror}") from error
        try:
            with blame(self.path):
                self._read(descriptor, home, proceed, accept, limit)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, home: Home, proceed: Proceed, accept: Callable[[str], object], limit: int) -> None:
        try:
            blob = Blob("it", descriptor, 0, os.fstat(descriptor).st_size)
            if compression_of(blob) != "gzip":
                raise SnapshotFault("it is no archive of a snapshot: it is not compressed by gzip")
            with closing(plain_chunks(blob)) as chunks:
                source = ChunkSource(_bounded(chunks, limit, proceed))
                entries = read_entries(source, need_end=True)
                self._take_description(next(entries, None), source)
                accept(self.name)
                for entry in entries:
                    self._take(entry, source, home)
                while rest := source.read(PIECE):  # filled up with zeros
                    if rest.strip(b"\0"):
                        raise SnapshotFault("something follows the end of the archive")
        except OSError as error:  # of the archive; those of what is written are StorageErrors
            raise SnapshotFault(f"it cannot be read: {error.strerror}") from error
        except ImageFault as fault:
            raise SnapshotFault(str(fault)) from fault
        self._check(proceed)

    def _take_description(self, entry: Entry | None, source: ChunkSource) -> None:
        name, _, file = ("", "", "") if entry is None else entry.name.decode("utf-8", "replace").partition("/")
        if entry is None or file != DESCRIPTION_FILE or entry.kind is not Kind.FILE or entry.extents is not None:
            raise SnapshotFault(f"it is no archive of a snapshot: it does not begin with NAME/{DESCRIPTION_FILE}")
        if (problem := name_problem(name)) is not None:
            raise SnapshotFault(f"its name: {problem}"[:300])
        if entry.size > MAX_DESCRIPTION_BYTES:
            raise SnapshotFault(f"{DESCRIPTION_FILE} has more than {MAX_DESCRIPTION_BYTES} bytes")
        data = source.read(entry.size)
        if len(data) < entry.size:
            raise SnapshotFault(f"it is cut off in {DESCRIPTION_FILE}")
        self.name, self._description = name, Description.parse(data)

    def _take(self, entry: Entry, source: ChunkSource, home: Home) -> None:
        where, slash, file = entry.name.decode("utf-8", "replace").rpartition("/")
        facts = self.description.files.get(file)
        if entry.kind is Kind.FILE and not slash and file == IMAGE_MEMBER and self.image is None:
            self.image = _written(entry, source, home.scratch)
        elif entry.kind is Kind.FILE and where == self.name and facts is not None and file not in self.files:
            if entry.size != facts.size:
                raise SnapshotFault(f"{file} has {entry.size} bytes instead of {facts.size}")
            self.files[file] = _written(entry, source, folder_of(home))
        else:
            raise SnapshotFault(f"{show(entry.name)} does not belong into it")

    def _check(self, proceed: Proceed) -> None:
        for name, facts in self.description.files.items():
            if name not in self.files:
                raise SnapshotFault(f"{name} is missing")
            if (digest := digest_of(self.files[name], proceed)) != facts.digest:
                raise SnapshotFault(f"{name} is damaged: its bytes hash to {digest}")


def _bounded(chunks: Iterator[bytes], limit: int, proceed: Proceed) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        proceed()
        total += len(chunk)
        if total > limit:
            raise SnapshotFault(f"it unpacks to more than {limit} bytes")
        yield chunk


def _written(entry: Entry, source: ChunkSource, folder: Path) -> int:
    """A new file without a name, as the entry has it."""
    descriptor = anonymous_file(folder)
    try:
        with storage_errors(folder):
            os.ftruncate(descriptor, entry.size)
        for start, length in entry.extents if entry.extents is not None else ((0, entry.size),):
            source.copy(length, _Part(descriptor, start, folder))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@attrs.define(eq=False)
class _Part:
    """Writes to a place of a file, and leaves what is zeros a hole."""

    descriptor: int
    offset: int
    folder: Path

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        with storage_errors(self.folder):
            while view:
                piece = view[:GRANULE]
                is_hole = bytes(piece) == _ZEROS[: len(piece)]
                done = len(piece) if is_hole else os.pwrite(self.descriptor, piece, self.offset)
                view = view[done:]
                self.offset += done
