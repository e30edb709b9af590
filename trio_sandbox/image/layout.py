"""Read an image from an OCI layout folder.

The folder may come from anyone: nothing in it is opened through a symbolic link, and nothing that is not a regular
file.
"""

from __future__ import annotations

import errno
import os
import stat

import attrs

from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.oci import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Image,
    Layer,
    choose_platform,
    choose_tag,
    host_architecture,
    parse_index,
    parse_object,
    resolve,
)

LAYOUT_FILE = "oci-layout"
INDEX_FILE = "index.json"
LAYOUT_VERSION = "1.0.0"


def check_layout_file(data: bytes) -> None:
    """Refuse a layout of another version."""
    version = parse_object(data, LAYOUT_FILE).get("imageLayoutVersion")
    if version != LAYOUT_VERSION:
        raise ImageFault(f"{LAYOUT_FILE} has version {version!r}; {LAYOUT_VERSION} is known")


def choose_image(index: bytes, tag: str | None) -> Descriptor:
    """The image of a layout's `index.json` that `tag`, or its absence, means."""
    manifests = parse_index(index)
    return choose_tag(manifests, tag) or choose_platform(manifests, host_architecture())


@attrs.define(eq=False)
class LayoutStore:
    """An open layout folder. Owns the descriptors of the folder and of every blob it gave out."""

    tag: str | None
    _folder: int
    _open: list[int] = attrs.field(factory=list)

    @classmethod
    def open(cls, path: str | os.PathLike[str], tag: str | None) -> LayoutStore:
        """Open the folder; the caller closes the store. Raises OSError when the folder cannot be opened."""
        return cls(tag, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def close(self) -> None:
        for descriptor in (*self._open, self._folder):
            os.close(descriptor)
        self._open.clear()

    def image(self) -> Image:
        check_layout_file(self._document(LAYOUT_FILE))
        return resolve(choose_image(self._document(INDEX_FILE), self.tag), self._read)

    def layer(self, layer: Layer) -> Blob:
        descriptor = self._open_file(*_blob_path(layer.place))
        self._open.append(descriptor)
        size = os.fstat(descriptor).st_size
        if layer.size is not None and size != layer.size:
            raise ImageFault(f"blob {layer.place} has {size} bytes instead of {layer.size}")
        return Blob(layer.place, descriptor, 0, size)

    def _document(self, name: str) -> bytes:
        descriptor = self._open_file(name)
        try:
            size = os.fstat(descriptor).st_size
            if size > MAX_DOCUMENT_BYTES:
                raise ImageFault(f"{name} has {size} bytes; {MAX_DOCUMENT_BYTES} are allowed")
            return Blob(name, descriptor, 0, size).read_at(0, size)
        finally:
            os.close(descriptor)

    def _read(self, wanted: Descriptor) -> bytes:
        descriptor = self._open_file(*_blob_path(wanted.digest))
        try:
            size = os.fstat(descriptor).st_size
            return Blob(wanted.digest, descriptor, 0, size).read_at(0, MAX_DOCUMENT_BYTES + 1)
        finally:
            os.close(descriptor)

    def _open_file(self, *parts: str) -> int:
        """Open a regular file below the folder, step by step, so that no step is a symbolic link."""
        name = "/".join(parts)
        folder = self._folder
        try:
            for part in parts[:-1]:
                step = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                if folder != self._folder:
                    os.close(folder)
                folder = step
            # O_NONBLOCK: opening a FIFO must not wait for a writer that never comes.
            descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            raise ImageFault(f"{name} is missing") from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENODEV):
                raise ImageFault(f"{name} is a link or a special file, which a layout may not hold") from error
            raise
        finally:
            if folder != self._folder:
                os.close(folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ImageFault(f"{name} is not a regular file")
        return descriptor


def _blob_path(digest: str) -> tuple[str, str, str]:
    algorithm, _, value = digest.partition(":")
    return "blobs", algorithm, value
