"""The file system of the simulated guest: a tree in memory, with rights, links, times and a size.

Tests use the methods of MemoryFiles: they act as root, take text or bytes for paths, and make what is missing on the
way. What the guest does goes through `as_user`.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable, Iterator

import attrs

from trio_sandbox.client.fs_types import FOLDER, REGULAR, SYMLINK
from trio_sandbox.testing.inodes import ENTER, WRITE, FileError, Inode

LINK_LIMIT = 40
"""Symbolic links on the way to one file."""
NAME_LIMIT = 255

Path = str | bytes


@attrs.define(eq=False)
class MemoryFiles:
    """A file system. capacity: bytes of content that it holds, more is ENOSPC; None for any number."""

    capacity: int | None = None
    time_ns: Callable[[], int] = time.time_ns
    root: Inode = attrs.field(init=False)
    _numbers: itertools.count[int] = attrs.Factory(lambda: itertools.count(1))

    def __attrs_post_init__(self) -> None:
        self.root = self.make(FOLDER | 0o755, 0, 0)
        for path, mode in (("/tmp", 0o1777), ("/root", 0o700), ("/proc", 0o555), ("/etc", 0o755), ("/run", 0o755)):
            self.make_folder(path, mode)
        self.write("/proc/meminfo", b"MemTotal:         500000 kB\nMemAvailable:     400000 kB\n")

    # -- for tests

    def write(self, path: Path, data: bytes | str, mode: int = 0o644) -> None:
        """Make a file, and the folders above it."""
        user, raw = self.as_user(0, 0), _raw(path)
        self.make_folder(os.path.dirname(raw))
        parent, name, found = user.place(raw)
        if found is None:
            found = parent.entries[name] = self.make(REGULAR | mode, 0, 0)
        self.replace(found, data.encode() if isinstance(data, str) else data)

    def read(self, path: Path) -> bytes:
        """The content of a file. Raises FileError."""
        found = self.as_user(0, 0).find(_raw(path))
        if found.is_folder:
            raise FileError(errno.EISDIR, _raw(path))
        return bytes(found.content)

    def make_folder(self, path: Path, mode: int = 0o755) -> None:
        """Make a folder, and those above it. Harmless when it is there."""
        at = self.root
        for name in filter(None, _raw(path).split(b"/")):
            at = at.entries.setdefault(name, self.make(FOLDER | mode, 0, 0))

    def exists(self, path: Path) -> bool:
        """Whether there is such a file, itself and not what it points to."""
        try:
            self.as_user(0, 0).find(_raw(path), follow=False)
        except FileError:
            return False
        return True

    def paths(self) -> list[str]:
        """All that is there but the root, sorted."""
        return sorted(os.fsdecode(path) for path, _ in walk(self.root))

    # -- for the guest

    def as_user(self, uid: int, gid: int) -> UserFiles:
        """The same with a user's rights."""
        return UserFiles(self, uid, gid)

    def make(self, mode: int, uid: int, gid: int, target: bytes = b"") -> Inode:
        """A file that is nowhere yet."""
        return Inode(next(self._numbers), mode, uid, gid, self.time_ns(), target=target)

    def replace(self, inode: Inode, content: bytes | bytearray) -> None:
        """Give a file another content. Raises FileError (ENOSPC)."""
        if self.capacity is not None and self.used - inode.size + len(content) > self.capacity:
            raise FileError(errno.ENOSPC)
        inode.content = bytearray(content)
        inode.modified = inode.changed = self.time_ns()

    @property
    def used(self) -> int:
        """Bytes of content."""
        return sum(inode.size for _, inode in walk(self.root))

    def require_folder(self, path: str, uid: int, gid: int) -> None:
        """Raises FileError when it is none that the user may enter."""
        found = self.as_user(uid, gid).find(os.fsencode(path))
        if not found.is_folder:
            raise FileError(errno.ENOTDIR, os.fsencode(path))
        found.require(ENTER, uid, gid, os.fsencode(path))

    def require_executable(self, path: str, uid: int, gid: int) -> None:
        """Raises FileError when it is no file that the user may execute."""
        found = self.as_user(uid, gid).find(os.fsencode(path))
        if found.kind != REGULAR:
            raise FileError(errno.EACCES, os.fsencode(path))
        found.require(ENTER, uid, gid, os.fsencode(path))


@attrs.frozen
class UserFiles:
    """A file system with the rights of a user."""

    files: MemoryFiles
    uid: int
    gid: int

    def place(self, path: bytes, *, follow: bool = True) -> tuple[Inode, bytes, Inode | None]:
        """The folder that holds a path's last name, the name, and what has it. Raises FileError for all else.

        follow: where that is a symbolic link, the place that it leads to.
        """
        parents = [self.files.root]
        names = path.split(b"/")
        links = 0
        name, found = b".", self.files.root
        while names:
            name = names.pop(0)
            if name in (b"", b".") and (names or len(parents) > 1 or not any(names)):
                found, name = parents[-1], b"."
                continue
            if len(name) > NAME_LIMIT:
                raise FileError(errno.ENAMETOOLONG, path)
            folder = parents[-1]
            folder.require(ENTER, self.uid, self.gid, path)
            if name == b"..":
                parents = parents[:-1] or parents
                found, name = parents[-1], b"."
                continue
            entry = folder.entries.get(name)
            if entry is not None and entry.is_link and (follow or any(names)):
                links += 1
                if links > LINK_LIMIT:
                    raise FileError(errno.ELOOP, path)
                if entry.target.startswith(b"/"):
                    parents = [self.files.root]
                names = entry.target.split(b"/") + names
                continue
            if not any(names):
                if names and entry is not None and not entry.is_folder:
                    raise FileError(errno.ENOTDIR, path)
                return folder, name, entry
            if entry is None:
                raise FileError(errno.ENOENT, path)
            if not entry.is_folder:
                raise FileError(errno.ENOTDIR, path)
            parents.append(entry)
            found = entry
        return parents[-2] if len(parents) > 1 else self.files.root, name, found

    def find(self, path: bytes, *, follow: bool = True) -> Inode:
        """What is there. Raises FileError."""
        _, _, found = self.place(path, follow=follow)
        if found is None:
            raise FileError(errno.ENOENT, path)
        return found

    def add(self, path: bytes, mode: int, target: bytes = b"") -> Inode:
        """Make a file, folder or link of a name that is new. Raises FileError."""
        folder, name, found = self.place(path, follow=False)
        if found is not None or name == b".":
            raise FileError(errno.EEXIST, path)
        folder.require(WRITE | ENTER, self.uid, self.gid, path)
        folder.entries[name] = made = self.files.make(mode, self.uid, self.gid, target)
        self.touched(folder)
        return made

    def touched(self, folder: Inode) -> None:
        """Its entries have changed."""
        folder.modified = folder.changed = self.files.time_ns()


def walk(folder: Inode, path: bytes = b"") -> Iterator[tuple[bytes, Inode]]:
    """All that is below a folder, parents first, with its path from there."""
    for name, entry in list(folder.entries.items()):
        below = path + b"/" + name
        yield below, entry
        if entry.is_folder:
            yield from walk(entry, below)


def _raw(path: Path) -> bytes:
    return os.fsencode(path)


__all__ = ["FOLDER", "REGULAR", "SYMLINK", "FileError", "Inode", "MemoryFiles", "UserFiles", "walk"]
