"""A disk image as the root of a machine: opened, checked and locked before anything boots.

The guest writes to the user's own file, so a lock on the file itself, whatever its names, keeps a second machine away;
it is held by the open file, also by the VMM that inherits it, and so never outlives them. The format is the one given
or that of the extension, never one that the bytes suggest: a guest could write the header of another format into its
disk, and have the host open whatever file that names. For the same reason a backing file must be in the image's own
folder, and the VMM is given descriptors of all files and looks up no name that stands in an image.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import trio

from trio_sandbox.errors import ImageInUseError, ImageNotFoundError, InvalidImageError, StorageError
from trio_sandbox.files import storage_errors
from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.faults import ImageFault, blame
from trio_sandbox.image.progress import Meter
from trio_sandbox.image.qcow2 import MAGIC as QCOW2_MAGIC
from trio_sandbox.image.qcow2 import Backing, check_qcow2
from trio_sandbox.image.reference import expanded
from trio_sandbox.image.vmdk import DESCRIPTION_MAGIC, check_vmdk
from trio_sandbox.image.vmdk import MAGIC as VMDK_MAGIC
from trio_sandbox.image_source import DiskImageFormat, ImageSource
from trio_sandbox.locks import is_locked_by_vmm, lock_disk

MAX_LAYERS = 8
"""Files that one image may consist of: itself, and what it stands on."""
SECTOR = 512
PATIENCE, PAUSE = 1.0, 0.05
"""Seconds that a file in use is waited for, as one whose owner was just killed is for a moment, and between two looks.
"""

_OTHERS = (
    (0, QCOW2_MAGIC, "a qcow2 image"),
    (0, VMDK_MAGIC, "a VMDK image"),
    (0, DESCRIPTION_MAGIC, "the description of a VMDK image"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI image"),
    (0, b"vhdxfile", "a VHDX image"),
    (0, b"conectix", "a VHD image"),
    (0, b"\x1f\x8b", "compressed by gzip"),
    (0, b"\xfd7zXZ\0", "compressed by xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (0, b"PK\3\4", "a zip archive"),
    (257, b"ustar", "a tar archive"),
)
"""What people take for a raw image: offset, magic, name."""


@attrs.frozen(eq=False)
class DiskLayer:
    """One open file of a disk image, and how it is stored."""

    descriptor: int
    format: DiskImageFormat


@asynccontextmanager
async def opened_disk(source: ImageSource) -> AsyncIterator[tuple[DiskLayer, ...]]:
    """The files of a disk image for the length of the block: first the one that is written to, then those beneath it.

    Raises ImageNotFoundError, InvalidImageError, ImageInUseError, StorageError, InvalidConfigError (`~` of a user who
    does not exist).
    """
    with ExitStack() as stack:
        yield await _opened(source, stack)


async def _opened(source: ImageSource, stack: ExitStack) -> tuple[DiskLayer, ...]:
    until = trio.current_time() + PATIENCE
    while True:
        with ExitStack() as attempt:
            try:
                layers = await trio.to_thread.run_sync(_open, source, attempt, Meter())
            except ImageInUseError:
                if trio.current_time() >= until:
                    raise
            else:
                stack.enter_context(attempt.pop_all())
                return layers
        await trio.sleep(PAUSE)


def _open(source: ImageSource, stack: ExitStack, meter: Meter) -> tuple[DiskLayer, ...]:
    assert source.disk_format is not None  # checked with the configuration
    reference = source.reference
    path = expanded(reference)
    with blame(reference), _read_errors(reference, path.parent):
        descriptor = _open_writable(reference, path)
        stack.callback(os.close, descriptor)
        _lock(reference, descriptor, is_written=True)
        layers = [DiskLayer(descriptor, source.disk_format)]
        backing = _check(layers[0], meter)
        if backing is not None:
            _open_chain(reference, path.resolve().parent, backing, layers, stack, meter)
    return tuple(layers)


@contextmanager
def _read_errors(reference: str, folder: Path) -> Iterator[None]:
    try:
        with storage_errors(folder):
            yield
    except OSError as error:  # also of a file system without locks
        raise InvalidImageError(reference, f"it cannot be read and locked: {error.strerror}") from error


def _open_chain(
    reference: str, folder: Path, backing: Backing | None, layers: list[DiskLayer], stack: ExitStack, meter: Meter
) -> None:
    """Open and check what `backing` names and all beneath it, and add it to `layers`."""
    seen = {_identity(layers[0].descriptor)}
    while backing is not None:
        if len(layers) == MAX_LAYERS:
            raise ImageFault(f"it stands on more than {MAX_LAYERS - 1} files")
        descriptor = _open_backing(folder, backing.name)
        stack.callback(os.close, descriptor)
        if (identity := _identity(descriptor)) in seen:
            raise ImageFault(f"its backing file {backing.name!a} stands on itself")
        seen.add(identity)
        _lock(reference, descriptor, is_written=False)
        layers.append(DiskLayer(descriptor, backing.format))
        name = backing.name
        try:
            backing = _check(layers[-1], meter)
        except ImageFault as fault:
            raise ImageFault(f"its backing file {name!a}: {fault}") from fault


def _open_writable(reference: str, path: Path) -> int:
    # O_NONBLOCK: a FIFO is refused instead of waited for.
    try:
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageNotFoundError(reference, "there is no such file") from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            why = f"{os.path.basename(path)} cannot be written to, as the guest will ({error.strerror})"
            raise StorageError(str(path.parent), error.errno, why) from error
        raise InvalidImageError(reference, f"it cannot be opened: {error.strerror}") from error


def _open_backing(folder: Path, name: str) -> int:
    """A file of the image's own folder, and nothing else that a name can mean to QEMU. It may be of any kind yet."""
    beside = name.removeprefix("./").removeprefix(f"{folder}/")
    if "/" in beside or ":" in beside or "\0" in beside or beside in ("", ".", ".."):
        raise ImageFault(
            f"its backing file {name!a} is not in its own folder; put it there and name it "
            "with `qemu-img rebase -u -F FORMAT -b FILE`"
        )
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(folder / beside, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ImageFault(f"its backing file {name!a} is a symbolic link") from error
        raise ImageFault(f"its backing file {name!a} cannot be opened: {error.strerror}") from error


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _lock(reference: str, descriptor: int, *, is_written: bool) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ImageFault("it, or what it stands on, is not a regular file")
    if not lock_disk(descriptor, shared=not is_written) or is_locked_by_vmm(descriptor, written=not is_written):
        raise ImageInUseError(
            reference,
            "another machine uses the file, which the guest writes to; give each sandbox a copy of its own"
            if is_written
            else "another machine writes to a file that it stands on; end that machine first",
        )


def _check(layer: DiskLayer, meter: Meter) -> Backing | None:
    """Whether the file is what its format says. Raises ImageFault."""
    file = Blob("the file", layer.descriptor, 0, os.fstat(layer.descriptor).st_size)
    if file.size == 0:
        raise ImageFault("the file is empty")
    match layer.format:
        case DiskImageFormat.QCOW2:
            return check_qcow2(file, meter)
        case DiskImageFormat.VMDK:
            check_vmdk(file, meter)
        case DiskImageFormat.RAW:
            _check_raw(file)
    return None


def _check_raw(file: Blob) -> None:
    start = file.read_at(0, SECTOR)
    for offset, magic, name in _OTHERS:
        if start[offset:].startswith(magic):
            raise ImageFault(f"it is no raw image but {name}; unpack it, or name its format (Image.disk(format=…))")
    if file.size % SECTOR:
        raise ImageFault(f"its size is no multiple of {SECTOR} bytes: the end is missing")
