"""A folder of the host as a root file system: what is in it, and the tar stream of it. It is only read.

It is walked with descriptors of its folders, so that no symbolic link is followed, whoever changes it meanwhile. Other
file systems that are mounted in it (and subvolumes of btrfs) are not entered: they come out as empty folders. Sockets
are left out, and so are the host's own marks on files (`security.` attributes other than capabilities); files with
several names in the folder keep them. What is wrong raises ImageFault; `FolderChanged` says that it was written to.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from trio_sandbox.image.faults import ImageFault, show
from trio_sandbox.image.limits import Limits
from trio_sandbox.image.merge import OVERLAY_XATTRS
from trio_sandbox.image.progress import Meter
from trio_sandbox.image.sink import Sink, write_zeros
from trio_sandbox.image.tarfields import BLOCK
from trio_sandbox.image.tarformat import Kind, Xattrs
from trio_sandbox.image.tarwriter import END_OF_ARCHIVE, padding, write_header

FORMAT = 1
"""Of the digest and of what is packed. A change makes the cache pack anew."""
READ_BYTES = 1 << 20
NAMED = 10
"""Files that one error names."""

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}
_KEPT_XATTRS = ("user.", "trusted.", "security.capability")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class FolderChanged(Exception):
    """Something in the folder changed while it was read."""


@attrs.frozen
class Found:
    """One name in the folder. `folder`: descriptor of the folder that has it, open until the walk goes on."""

    path: bytes
    """Relative; b"" for the root."""
    status: os.stat_result
    folder: int

    @property
    def name(self) -> bytes:
        return self.path.rpartition(b"/")[2] or b"."


@attrs.frozen
class FolderFacts:
    """A folder as it was when it was walked: equal digests mean that nothing was written to it in between."""

    digest: str
    newest_ns: int
    """When the youngest of its files was changed last."""


@attrs.define(eq=False)
class _Unreadable:
    """Files and folders that this user may not read: all are looked for, to be named at once."""

    paths: list[bytes] = attrs.field(factory=list)
    count: int = 0

    def add(self, path: bytes) -> None:
        self.count += 1
        if self.count <= NAMED:
            self.paths.append(path or b".")

    def check(self) -> None:
        if self.count:
            more = f" and {self.count - NAMED} more" if self.count > NAMED else ""
            names = ", ".join(map(show, self.paths))
            raise ImageFault(f"not readable for this user: {names}{more}; change their modes, or run it as their owner")


@attrs.define(eq=False)
class _Walk:
    """Through a folder, within limits; folders come before what is in them, in the order of their names."""

    limits: Limits
    meter: Meter
    unreadable: _Unreadable = attrs.field(factory=_Unreadable)
    _entries: int = 0
    _bytes: int = 0
    _names: int = 0

    def through(self, root: int) -> Iterator[Found]:
        status = os.fstat(root)
        yield Found(b"", status, root)
        yield from self._within(root, b"", status.st_dev, 1)

    def _within(self, folder: int, path: bytes, device: int, depth: int) -> Iterator[Found]:
        for name in self._sorted_names(folder, path):
            inner = path + b"/" + name if path else name
            try:
                found = Found(inner, os.stat(name, dir_fd=folder, follow_symlinks=False), folder)
            except FileNotFoundError:
                raise FolderChanged from None
            except PermissionError:
                self.unreadable.add(inner)
                continue
            except OSError as error:
                raise _unread(inner, error) from error
            if stat.S_ISSOCK(found.status.st_mode):
                continue
            self._check(found, depth)
            yield found
            if stat.S_ISDIR(found.status.st_mode) and found.status.st_dev == device:
                with opened(found, self.unreadable, os.O_DIRECTORY) as inside:
                    if inside is not None:
                        yield from self._within(inside, inner, device, depth + 1)

    def _sorted_names(self, folder: int, path: bytes) -> list[bytes]:
        names = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    names.append(os.fsencode(entry.name))
                    if self._entries + len(names) > self.limits.entries:
                        raise ImageFault(f"it has more than {self.limits.entries} entries")
        except OSError as error:
            raise _unread(path, error) from error
        self._entries += len(names)
        return sorted(names)

    def _check(self, found: Found, depth: int) -> None:
        self.meter.add(BLOCK)
        limits, size = self.limits, found.status.st_size if stat.S_ISREG(found.status.st_mode) else 0
        if depth > limits.depth:
            raise ImageFault(f"{show(found.path)} is more than {limits.depth} folders deep")
        if len(found.path) > limits.path_bytes:
            raise ImageFault(f"a path is longer than {limits.path_bytes} bytes")
        self.count_metadata(len(found.path))
        if size > limits.file_bytes:
            raise ImageFault(f"{show(found.path)} has {size} bytes; a file may have {limits.file_bytes}")
        self._bytes += size
        if self._bytes > limits.total_bytes:
            raise ImageFault(f"its files have more than {limits.total_bytes} bytes")

    def count_metadata(self, amount: int) -> None:
        self._names += amount
        if self._names > self.limits.metadata_bytes:
            raise ImageFault(f"its names, links and attributes have more than {self.limits.metadata_bytes} bytes")


@contextmanager
def opened(found: Found, unreadable: _Unreadable, flags: int = 0) -> Iterator[int | None]:
    """The very file that was found, open for the block; None if it may not be read. Its access time stays."""
    try:
        descriptor = _open(found, flags)
    except PermissionError:
        unreadable.add(found.path)
        yield None
        return
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise FolderChanged from error
        raise _unread(found.path, error) from error
    try:
        if facts_of(os.fstat(descriptor)) != facts_of(found.status):
            raise FolderChanged
        yield descriptor
    finally:
        os.close(descriptor)


def _open(found: Found, flags: int) -> int:
    try:
        return os.open(found.name, _READ | flags | os.O_NOATIME, dir_fd=found.folder)
    except PermissionError:  # only the owner may ask for that
        return os.open(found.name, _READ | flags, dir_fd=found.folder)


def _unread(path: bytes, error: OSError) -> ImageFault:
    return ImageFault(f"{show(path or b'.')} cannot be read: {error.strerror}")


def facts_of(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is written to, or is another one."""
    return (
        *(status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_rdev),
        *(status.st_mtime_ns, status.st_ctime_ns, status.st_ino),
    )


def open_folder(path: Path) -> int:
    """Open the folder itself; the caller closes it. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def look(root: int, limits: Limits, meter: Meter) -> FolderFacts:
    """Walk through the folder and read nothing. Raises ImageFault, FolderChanged."""
    digest = hashlib.sha256(f"folder {FORMAT} {os.fstat(root).st_dev}".encode())
    newest, walk = 0, _Walk(limits, meter)
    for found in walk.through(root):
        digest.update(b"%d %b %b\n" % (len(found.path), found.path, repr(facts_of(found.status)).encode()))
        newest = max(newest, found.status.st_ctime_ns)
    walk.unreadable.check()
    return FolderFacts(f"sha256:{digest.hexdigest()}", newest)


def write_folder(root: int, sink: Sink, limits: Limits, meter: Meter) -> None:
    """Write the folder to `sink` as a tar archive. Raises ImageFault, FolderChanged, OSError from the sink."""
    walk = _Walk(limits, meter)
    links: dict[tuple[int, int], bytes] = {}
    for found in walk.through(root):
        first = _first_name(found, links)
        if first is not None:
            sink.write(write_header(found.path, Kind.HARDLINK, link=first))
        elif stat.S_ISREG(found.status.st_mode):
            with opened(found, walk.unreadable) as descriptor:
                if descriptor is not None and not walk.unreadable.count:
                    _write_file(found, descriptor, sink, walk)
        elif not walk.unreadable.count:
            sink.write(_header(found, _xattrs(found, f"/proc/self/fd/{found.folder}/".encode() + found.name, walk)))
    walk.unreadable.check()
    sink.write(END_OF_ARCHIVE)


def _first_name(found: Found, links: dict[tuple[int, int], bytes]) -> bytes | None:
    """Under which name a file is there already."""
    status = found.status
    if status.st_nlink < 2 or stat.S_ISDIR(status.st_mode):
        return None
    first = links.setdefault((status.st_dev, status.st_ino), found.path)
    return None if first == found.path else first


def _header(found: Found, xattrs: Xattrs) -> bytes:
    status, kind = found.status, _KINDS[stat.S_IFMT(found.status.st_mode)]
    link = b""
    if kind is Kind.SYMLINK:
        try:
            link = os.readlink(found.name, dir_fd=found.folder)
        except OSError as error:
            raise FolderChanged from error
    return write_header(
        (found.path or b".") + b"/" if kind is Kind.DIRECTORY else found.path,
        kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=min(max(int(status.st_mtime), 0), 0xFFFFFFFF),
        size=status.st_size if kind is Kind.FILE else 0,
        link=link,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)),
        xattrs=xattrs,
    )


def _xattrs(found: Found, place: int | bytes, walk: _Walk) -> Xattrs:
    """place: a descriptor, or a path of which the last step is not followed."""
    follow = isinstance(place, int)
    try:
        names = [name for name in os.listxattr(place, follow_symlinks=follow) if name.startswith(_KEPT_XATTRS)]
        kept = [(os.fsencode(name), os.getxattr(place, name, follow_symlinks=follow)) for name in sorted(names)]
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPERM, errno.EACCES):
            return ()
        if error.errno in (errno.ENODATA, errno.ENOENT):
            raise FolderChanged from error
        raise ImageFault(f"the attributes of {show(found.path)} cannot be read: {error.strerror}") from error
    walk.count_metadata(sum(len(name) + len(value) for name, value in kept))
    return tuple((name, value) for name, value in kept if not name.startswith(OVERLAY_XATTRS))


def _write_file(found: Found, descriptor: int, sink: Sink, walk: _Walk) -> None:
    """One file with its header. Holes are not read."""
    sink.write(_header(found, _xattrs(found, descriptor, walk)))
    size, at = found.status.st_size, 0
    while at < size:
        start, end = _next_data(descriptor, at, size)
        write_zeros(start - at, sink, walk.meter)
        for offset in range(start, end, READ_BYTES):
            wanted = min(READ_BYTES, end - offset)
            sink.write(_read(found, descriptor, wanted, offset))
            walk.meter.add(wanted)
        at = end
    if facts_of(os.fstat(descriptor)) != facts_of(found.status):
        raise FolderChanged
    sink.write(padding(size))


def _read(found: Found, descriptor: int, wanted: int, offset: int) -> bytes:
    try:
        data = os.pread(descriptor, wanted, offset)
    except OSError as error:
        raise _unread(found.path, error) from error
    if len(data) != wanted:
        raise FolderChanged
    return data


def _next_data(descriptor: int, at: int, size: int) -> tuple[int, int]:
    """Where the next data begins and ends, both `size` when nothing but a hole is left."""
    try:
        start = os.lseek(descriptor, at, os.SEEK_DATA)
        return min(start, size), min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return at, size
        raise
