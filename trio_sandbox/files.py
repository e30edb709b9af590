"""Files that leave nothing behind: no name until they are finished, or none ever.

A file that is being written has no name (O_TMPFILE), so a process that is killed in the middle, even with SIGKILL,
leaves nothing to clean up. `publish` gives it a name in one step.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trio_sandbox.errors import StorageError


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the OSErrors of a full or read-only disk into a StorageError about `path`; others pass."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO):
            raise StorageError(str(path), error.errno, error.strerror or str(error)) from error
        raise


def anonymous_file(folder: Path, mode: int = 0o600) -> int:
    """Open a new file without a name in `folder`, for reading and writing; the caller closes the descriptor.

    mode: less the umask. Falls back to a name that is unlinked at once (with 0o600) where the file system has no
    O_TMPFILE. Raises StorageError.
    """
    with storage_errors(folder):
        try:
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT) or not folder.is_dir():
                raise
        import tempfile  # costs as much as all of this module, which every command line needs

        descriptor, name = tempfile.mkstemp(dir=folder)
        os.unlink(name)
        return descriptor


@contextmanager
def closing_descriptor(descriptor: int) -> Iterator[int]:
    """The descriptor for the length of the block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def descriptor_path(descriptor: int) -> str:
    """A path by which this process and its children that inherit `descriptor` can open the same file anew."""
    return f"/proc/self/fd/{descriptor}"


def publish(descriptor: int, path: Path, mode: int = 0o600, *, durable: bool = True) -> None:
    """Give the anonymous file the name `path`, replacing what had it, in one step and after its bytes are on disk.

    durable: False leaves the bytes to the kernel's own time, for what is worthless after a power cut anyway. Raises
    StorageError. When interrupted, either the old file has the name or the new one does, whole.
    """
    with storage_errors(path.parent):
        os.fchmod(descriptor, mode)
        if durable:
            os.fsync(descriptor)
        try:
            _link(descriptor, path)
            return
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EXDEV, errno.EOPNOTSUPP):
                raise
        # link(2) does not replace, and cannot name a file that was unlinked: go by a name beside it.
        beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
        try:
            try:
                _link(descriptor, beside)
            except FileNotFoundError:
                with beside.open("wb") as copy:
                    copy_sparse(descriptor, copy.fileno())
                    os.fchmod(copy.fileno(), mode)
                    os.fsync(copy.fileno())
            os.rename(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def _link(descriptor: int, path: Path) -> None:
    # Without a src_dir_fd Python calls link(2), which does not follow the link in /proc; an absolute path ignores it.
    os.link(descriptor_path(descriptor), path, src_dir_fd=descriptor, follow_symlinks=True)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data` where the file is. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def publish_bytes(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a small file whole or not at all. Raises StorageError."""
    descriptor = anonymous_file(path.parent)
    try:
        with storage_errors(path.parent):
            write_all(descriptor, data)
        publish(descriptor, path, mode)
    finally:
        os.close(descriptor)


FICLONE = 0x40049409


COPY_BYTES = 16 << 20
"""Most bytes that the kernel is asked to copy at once: what a copy that is called off still has to wait for."""


def copy_sparse(source: int, target: int, proceed: Callable[[], object] = lambda: None) -> None:
    """Make `target` equal to `source`, sharing blocks where the file system can and keeping holes where it cannot.

    Both are descriptors of regular files. proceed: called between pieces; it raises when the copy is called off. Raises
    OSError as the file system gives it; the caller names the folder.
    """
    try:
        fcntl.ioctl(target, FICLONE, source)
        return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS):
            raise
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    offset = 0
    while offset < size:
        try:
            start = os.lseek(source, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                return
            raise
        offset = os.lseek(source, start, os.SEEK_HOLE)
        _copy_range(source, target, start, offset, proceed)


def anonymous_copy(source: int, folder: Path, proceed: Callable[[], object] = lambda: None) -> int:
    """Open a new file without a name in `folder`, equal to the open file `source`; the caller closes it.

    proceed: as for `copy_sparse`. Raises StorageError.
    """
    target = anonymous_file(folder)
    try:
        with storage_errors(folder):
            copy_sparse(source, target, proceed)
    except BaseException:
        os.close(target)
        raise
    return target


def copy_part(source: int, target: int, length: int, source_offset: int, target_offset: int) -> None:
    """Copy bytes from one place in a file to another in another, which may be of different file systems. Raises
    OSError.
    """
    while length:
        os.lseek(target, target_offset, os.SEEK_SET)
        done = os.sendfile(target, source, source_offset, min(length, 1 << 20))
        if done == 0:
            raise OSError(errno.EIO, "the source was cut while it was copied")
        length, source_offset, target_offset = length - done, source_offset + done, target_offset + done


def _copy_range(source: int, target: int, start: int, end: int, proceed: Callable[[], object]) -> None:
    while start < end:
        proceed()
        try:
            done = os.copy_file_range(source, target, min(end - start, COPY_BYTES), start, start)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            done = os.pwrite(target, os.pread(source, min(end - start, 1 << 20), start), start)
        if done == 0:  # the source was cut while we copied
            return
        start += done
