"""Trees of files on the host, to and from records. Blocking: for worker threads, a lot at a time.

`TreeWriter` works for a hostile guest. Every folder that it writes to is one that it has made itself and holds open by
a descriptor; names are single, created exclusively, and no link is ever followed. A tree appears under its name when it
is whole. `read_tree` reads what the caller chose: it follows no link either, so that only that folder travels.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from trio_sandbox.client.fs_records import RecordStream, TreeRecord
from trio_sandbox.client.fs_types import FOLDER, REGULAR, SYMLINK, FsCopied, path_text
from trio_sandbox.client.host_file import write_all
from trio_sandbox.errors import FilesystemError, RemoteProtocolError
from trio_sandbox.files import storage_errors

LOT = 262_144
"""Bytes that go to or come from a worker thread at once: hundreds of small files, or a millisecond of a large one."""
MAX_DEPTH = 128
"""Folders within folders; each is a descriptor while we are in it."""

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@attrs.define
class Budget:
    """What a copy from the guest may bring at most, and what it has brought. None: no limit."""

    source: str
    """Its path in the guest."""
    max_bytes: int | None = None
    max_entries: int | None = None
    size: int = 0
    entries: int = 0

    def spend(self, *, size: int = 0, entries: int = 0) -> None:
        """Count. Raises FilesystemError (EFBIG) about the source when it is too much."""
        self.size += size
        self.entries += entries
        if self.max_bytes is not None and self.size > self.max_bytes:
            raise FilesystemError(errno.EFBIG, self.source, f"it has more than max_bytes={self.max_bytes} bytes")
        if self.max_entries is not None and self.entries > self.max_entries:
            raise FilesystemError(errno.EFBIG, self.source, f"it has more than max_entries={self.max_entries} entries")


@attrs.define
class _Folder:
    """A folder that we have made, while we are in it."""

    name: bytes
    descriptor: int
    mtime_ns: int

    def close(self) -> None:
        os.close(self.descriptor)

    def finish(self) -> None:
        """All that is in it has been made, so its time stays as it is set now."""
        try:
            os.utime(self.descriptor, ns=(self.mtime_ns, self.mtime_ns))
        finally:
            self.close()


class TreeWriter:
    """Makes a new folder at `target` out of a hostile guest's records. To be closed, which removes what
    `finish_untrusted` has not put in place.

    Permission bits are the guest's, less the umask and less setuid, setgid and sticky; the owner can always enter and
    change a folder. Raises RemoteProtocolError, FilesystemError (a limit), StorageError, OSError; FileExistsError when
    the target exists.
    """

    def __init__(self, target: Path, budget: Budget, *, symlinks: bool) -> None:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        self._target = target
        self._unfinished = target.with_name(f".{target.name[:200]}.{secrets.token_hex(8)}")
        self._budget = budget
        self._symlinks = symlinks
        self._skipped = 0
        self._records = RecordStream()
        self._inside: list[_Folder] = []
        self._file: int | None = None
        self._left = 0
        self._times = (0, 0)

    def close(self) -> None:
        """Remove what is unfinished."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        while self._inside:
            self._inside.pop().close()
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def feed_untrusted(self, chunk: bytes) -> None:
        """Make what `chunk` completes."""
        with storage_errors(self._target.parent):
            for item in self._records.feed_untrusted(chunk):
                if isinstance(item, bytes):
                    self._write(item)
                else:
                    self._make(item)

    def finish_untrusted(self) -> FsCopied:
        """The guest has said that this is all: put the tree in place."""
        self._records.finish_untrusted()
        if not self._inside:
            raise RemoteProtocolError("a tree without a root")
        with storage_errors(self._target.parent):
            while self._inside:
                self._inside.pop().finish()
            # Onto a name that somebody took meanwhile: an empty folder is replaced, anything else an error.
            os.rename(self._unfinished, self._target)
        return FsCopied(self._budget.entries, self._budget.size, self._skipped)

    def _make(self, record: TreeRecord) -> None:
        if record.kind == SYMLINK and record.name and not self._symlinks:
            self._skipped += 1
            return
        self._budget.spend(entries=1)
        if not record.name:
            self._make_root(record)
            return
        *parents, name = record.components
        folder = self._enter(parents)
        try:
            if record.kind == FOLDER:
                self._make_folder(name, folder, record)
            elif record.kind == REGULAR:
                self._make_file(name, folder, record)
            else:
                os.symlink(record.target, name, dir_fd=folder)
                os.utime(name, ns=(record.mtime_ns,) * 2, dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            raise RemoteProtocolError(f"the tree has {record.name[:256]!r} twice") from None

    def _enter(self, parents: list[bytes]) -> int:
        """The descriptor of the folder that an entry goes into: one that we are in, leaving those beneath it."""
        inside = [folder.name for folder in self._inside[1:]]
        common = next((n for n, pair in enumerate(zip(inside, parents, strict=False)) if pair[0] != pair[1]), None)
        depth = min(len(inside), len(parents)) if common is None else common
        if not self._inside or depth < len(parents):
            raise RemoteProtocolError("the tree has an entry of a folder that is not there")
        while len(self._inside) > depth + 1:
            self._inside.pop().finish()
        return self._inside[-1].descriptor

    def _make_root(self, record: TreeRecord) -> None:
        if self._inside:
            raise RemoteProtocolError("the tree has two roots")
        if record.kind != FOLDER:
            raise FilesystemError(errno.ENOTDIR, self._budget.source, os.strerror(errno.ENOTDIR))
        os.mkdir(self._unfinished, _folder_mode(record))
        self._inside.append(_Folder(b"", os.open(self._unfinished, _OPEN_FOLDER), record.mtime_ns))

    def _make_folder(self, name: bytes, folder: int, record: TreeRecord) -> None:
        if len(self._inside) == MAX_DEPTH:
            path = f"{self._budget.source}/{path_text(record.name)}"
            raise FilesystemError(errno.ENAMETOOLONG, path, f"more than {MAX_DEPTH} folders within each other")
        os.mkdir(name, _folder_mode(record), dir_fd=folder)
        self._inside.append(_Folder(name, os.open(name, _OPEN_FOLDER, dir_fd=folder), record.mtime_ns))

    def _make_file(self, name: bytes, folder: int, record: TreeRecord) -> None:
        self._file = os.open(name, _NEW_FILE, record.mode & 0o777, dir_fd=folder)
        self._left = record.size
        self._times = (record.mtime_ns, record.mtime_ns)
        self._end_file_if_whole()

    def _write(self, piece: bytes) -> None:
        assert self._file is not None
        self._budget.spend(size=len(piece))
        write_all(self._file, piece)
        self._left -= len(piece)
        self._end_file_if_whole()

    def _end_file_if_whole(self) -> None:
        if not self._left and self._file is not None:
            descriptor, self._file = self._file, None
            try:
                os.utime(descriptor, ns=self._times)
            finally:
                os.close(descriptor)


def _folder_mode(record: TreeRecord) -> int:
    return record.mode & 0o777 | 0o700


class TreeReader:
    """The records of a folder of the host, in lots of about LOT bytes. To be closed.

    The root may be a link, what is in it is sent as it is. Raises OSError with the path of the file, also for one that
    becomes shorter while it is read.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._entries = self._size = self._skipped = 0
        self._pieces = self._walk()

    def lot(self) -> bytes:
        """The next bytes; b"" at the end."""
        lot = bytearray()
        for piece in self._pieces:
            lot += piece
            if len(lot) >= LOT:
                break
        return bytes(lot)

    def close(self) -> None:
        """Let go of the folder."""
        self._pieces.close()

    @property
    def copied(self) -> FsCopied:
        """What was sent so far."""
        return FsCopied(self._entries, self._size, self._skipped)

    def _walk(self) -> Generator[bytes, None, None]:
        with _naming(self._root), _opened(self._root, os.O_DIRECTORY) as root:
            yield self._record("", os.fstat(root))
            yield from self._entries_of(root, "", 1)

    def _entries_of(self, folder: int, prefix: str, depth: int) -> Generator[bytes, None, None]:
        if depth > MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, f"more than {MAX_DEPTH} folders within each other")
        for name in sorted(os.listdir(folder)):
            path = prefix + name
            with _naming(self._root / path):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    with _opened(name, os.O_DIRECTORY | os.O_NOFOLLOW, folder) as inner:
                        yield self._record(path, os.fstat(inner))
                        yield from self._entries_of(inner, path + "/", depth + 1)
                elif stat.S_ISREG(status.st_mode):
                    yield from self._file(name, path, folder)
                elif stat.S_ISLNK(status.st_mode):
                    yield self._record(path, status, os.readlink(name, dir_fd=folder))
                else:
                    self._skipped += 1

    def _file(self, name: str, path: str, folder: int) -> Iterator[bytes]:
        with _opened(name, os.O_NOFOLLOW | os.O_NONBLOCK, folder) as descriptor:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.ESTALE, "the file became another while it was copied")
            yield self._record(path, status)
            left = status.st_size
            while left:
                piece = os.read(descriptor, min(left, LOT))
                if not piece:
                    raise OSError(errno.ESTALE, "the file became shorter while it was copied")
                left -= len(piece)
                self._size += len(piece)
                yield piece

    def _record(self, path: str, status: os.stat_result, target: str = "") -> bytes:
        self._entries += 1
        mode = stat.S_IFMT(status.st_mode) | status.st_mode & 0o777
        size = status.st_size if stat.S_ISREG(mode) else 0
        return TreeRecord(os.fsencode(path), mode, status.st_mtime_ns, size, os.fsencode(target)).pack()


@contextmanager
def _opened(path: Path | str, flags: int, folder: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Give the OSErrors within the whole path."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str) and os.path.isabs(error.filename):
            raise  # it was named further in
        raise OSError(error.errno, error.strerror, str(path)) from error
