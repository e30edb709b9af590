"""What is known about a file in the guest, and how its path is written. No I/O.

Paths are bytes in Linux. They are text here, with what is not UTF-8 escaped as surrogates (PEP 383), so that a path
that came from the guest goes back to it unchanged.
"""

from __future__ import annotations

import enum
import errno
import os
import posixpath

import attrs

from trio_sandbox.errors import FilesystemError
from trio_sandbox.relay.messages import (
    FileStatus,
)

GuestPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

MAX_PATH = 4096
"""Bytes of a path, as in Linux."""

TYPE_BITS = 0o170000
REGULAR, FOLDER, SYMLINK = 0o100000, 0o040000, 0o120000


def path_bytes(path: GuestPath, workdir: str = "/") -> bytes:
    """The absolute path that goes on the wire; a relative one begins at `workdir`. `..` is left to the guest.

    Raises TypeError for what is no path, ValueError for an empty one or one with NUL, FilesystemError (ENAMETOOLONG).
    """
    raw = raw_path(path)
    full = posixpath.join(workdir.encode("utf-8", "surrogateescape"), raw)
    if len(full) > MAX_PATH:
        raise FilesystemError(errno.ENAMETOOLONG, path_text(full), os.strerror(errno.ENAMETOOLONG))
    return full


def raw_path(path: GuestPath) -> bytes:
    """A path as it is, relative or not. Raises TypeError and ValueError as `path_bytes`."""
    given = os.fspath(path)
    raw = given.encode("utf-8", "surrogateescape") if isinstance(given, str) else given
    if not raw or b"\0" in raw:
        raise ValueError("a path must not be empty or hold NUL")
    return raw


def path_text(path: bytes) -> str:
    """A path of the guest as text."""
    return path.decode("utf-8", "surrogateescape")


class FsEntryKind(enum.StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"
    """A device, a FIFO, a socket."""


_KINDS = {REGULAR: FsEntryKind.FILE, FOLDER: FsEntryKind.DIRECTORY, SYMLINK: FsEntryKind.SYMLINK}


@attrs.frozen
class FsMetadata:
    """What stat(2) says about a file. Sizes in bytes; `mode` is the permission bits alone, 0 to 0o7777.

    Times twice: `…_ns` as nanoseconds since the epoch, exact, and without it as milliseconds. `created` is None where
    the file system does not keep it.
    """

    kind: FsEntryKind
    size: int
    mode: int
    uid: int
    gid: int
    nlink: int
    inode: int
    device: int
    accessed_ns: int
    modified_ns: int
    changed_ns: int
    created_ns: int | None

    @classmethod
    def of(cls, status: FileStatus) -> FsMetadata:
        """From the guest's words."""
        return cls(
            kind=_KINDS.get(status.mode & TYPE_BITS, FsEntryKind.OTHER),
            size=status.size,
            mode=status.mode & 0o7777,
            uid=status.uid,
            gid=status.gid,
            nlink=status.nlink,
            inode=status.ino,
            device=status.dev,
            accessed_ns=status.atime_ns,
            modified_ns=status.mtime_ns,
            changed_ns=status.ctime_ns,
            created_ns=status.birth_ns or None,
        )

    @property
    def readonly(self) -> bool:
        """Whether nobody has the permission to write; root writes all the same."""
        return not self.mode & 0o222

    @property
    def accessed(self) -> float:
        return self.accessed_ns / 1e6

    @property
    def modified(self) -> float:
        return self.modified_ns / 1e6

    @property
    def changed(self) -> float:
        """When the metadata changed last."""
        return self.changed_ns / 1e6

    @property
    def created(self) -> float | None:
        return None if self.created_ns is None else self.created_ns / 1e6


@attrs.frozen
class FsEntry:
    """One entry of a folder. `metadata` is of the entry itself; for a symbolic link `target` is where it points."""

    path: str
    """The folder's path and the name."""
    metadata: FsMetadata
    target: str | None = None

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)

    @property
    def kind(self) -> FsEntryKind:
        return self.metadata.kind

    @property
    def size(self) -> int:
        return self.metadata.size

    @property
    def mode(self) -> int:
        return self.metadata.mode

    @property
    def modified(self) -> float:
        """Milliseconds since the epoch."""
        return self.metadata.modified


@attrs.frozen
class FsCopied:
    """What a copy between host and guest brought. entries: files, folders and links. size: bytes of files. skipped:
    what was left out, which is devices, FIFOs and sockets of the host, or symbolic links of the guest.
    """

    entries: int
    size: int
    skipped: int
