"""One file of the host, as source or target of a copy. Blocking: for worker threads, a lot at a time."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from trio_sandbox.files import anonymous_file, publish, storage_errors


class FileReader:
    """A regular file of the host that is being read. Raises OSError, also for what is no regular file."""

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):  # a FIFO would be waited for without an end
            self.close()
            raise OSError(errno.EINVAL, "neither a regular file nor a folder", str(path))
        self.mode = status.st_mode & 0o777

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, b"" at the end."""
        assert self._descriptor is not None
        return os.read(self._descriptor, size)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class FileWriter:
    """A file of the host that is being written, without a name until `finish`: it appears whole or not at all.

    A file or a symbolic link of that name is replaced; anything else is FileExistsError. mode: permission bits, less
    the umask; of setuid, setgid and sticky nothing is taken. Raises StorageError, OSError.
    """

    def __init__(self, path: Path, mode: int) -> None:
        self._path = path
        self._descriptor: int | None = None
        _check_replaceable(path)
        self._descriptor = anonymous_file(path.parent, mode & 0o777)

    def write(self, data: bytes) -> None:
        """Add bytes."""
        with storage_errors(self._path.parent):
            write_all(self._file, data)

    def finish(self) -> None:
        """Put the file on disk and in place."""
        _check_replaceable(self._path)
        publish(self._file, self._path, stat.S_IMODE(os.fstat(self._file).st_mode))

    def close(self) -> None:
        """Let go of the file; without `finish` nothing is left of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def _file(self) -> int:
        assert self._descriptor is not None
        return self._descriptor


def _check_replaceable(path: Path) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise FileExistsError(errno.EEXIST, "it is neither a file nor a symbolic link", str(path))


def write_all(descriptor: int, data: bytes) -> None:
    """write(2) until all is written."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
