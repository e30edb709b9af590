"""The blobs of the cache, by what they hash to, and the downloads that are not finished. Sync.

A blob gets its name in one step, when it is whole, verified and on disk. Its size is compared whenever it is looked
for, and its bytes are hashed when they are read.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import attrs

from trio_sandbox.files import publish, publish_bytes, storage_errors
from trio_sandbox.home import Home
from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.cache.keys import download_key
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.oci import MAX_DOCUMENT_BYTES, Descriptor, digest_of
from trio_sandbox.locks import held_if_free

MAX_PARTS = 32
MAX_PART_BYTES = 8 << 30
MAX_PART_AGE = 7 * 86_400.0
"""Interrupted downloads that are kept to be resumed: how many, their bytes, seconds since they grew."""

_HEX = re.compile(r"[0-9a-f]{64}")
_READ_BYTES = 1 << 20


@attrs.frozen
class BlobCache:
    """The blobs of one data folder. Raises StorageError where the disk refuses."""

    home: Home

    def path(self, digest: str) -> Path:
        """Where the blob is, if it is there."""
        return self.home.blobs / digest.removeprefix("sha256:")

    def part(self, digest: str) -> Path:
        """Where its download begins, and is kept when it is interrupted."""
        return self.parts / digest.removeprefix("sha256:")

    @property
    def parts(self) -> Path:
        """The folder of downloads that are not finished."""
        return self.home.folder("cache", "blobs", "parts")

    def holds(self, digest: str, size: int) -> bool:
        """Whether there is a blob of this size under the digest; its bytes are not looked at."""
        try:
            found = os.stat(self.path(digest), follow_symlinks=False)
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == size

    def open(self, digest: str, size: int) -> Blob:
        """The blob; the caller closes its descriptor. Raises ImageFault when it is not there, or of another size."""
        try:
            with storage_errors(self.path(digest)):
                descriptor = os.open(self.path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ImageFault(f"blob {digest} is not in the cache") from error
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            os.close(descriptor)
            raise ImageFault(f"blob {digest} has {found.st_size} bytes instead of {size}")
        return Blob(digest, descriptor, 0, size)

    def read(self, wanted: Descriptor) -> bytes:
        """The bytes of a document, for `oci.read_verified`, which checks them. Raises ImageFault."""
        blob = self.open(wanted.digest, wanted.size)
        try:
            return blob.read_at(0, MAX_DOCUMENT_BYTES + 1)
        finally:
            os.close(blob.descriptor)

    def add_document(self, data: bytes) -> str:
        """Keep a document; its digest. One that is there already, and intact, is left alone."""
        digest = digest_of(data)
        path = self.path(digest)
        with storage_errors(path.parent):
            try:
                intact = path.stat().st_size == len(data) and path.read_bytes() == data
            except FileNotFoundError:
                intact = False
        if not intact:
            publish_bytes(path, data)
        return digest

    def add_file(self, descriptor: int, digest: str) -> None:
        """Name an anonymous file that hashes to `digest`."""
        publish(descriptor, self.path(digest))

    def sync_part(self, digest: str) -> None:
        """Have a download on disk. Blocks."""
        part = self.part(digest)
        with storage_errors(part.parent), part.open("rb") as file:
            os.fsync(file.fileno())

    def adopt(self, digest: str, size: int) -> None:
        """Name a download that was verified. Raises ImageFault when it is not as long as it should be."""
        part = self.part(digest)
        with storage_errors(part.parent):
            found = part.stat().st_size
            if found != size:
                part.unlink()
                raise ImageFault(f"blob {digest} came with {found} bytes instead of {size}")
            part.rename(self.path(digest))

    def is_intact(self, digest: str, size: int, tick: Callable[[int], None]) -> bool:
        """Whether the blob is there and hashes to its digest. Reads all of it; `tick` is told each piece's bytes."""
        try:
            blob = self.open(digest, size)
        except ImageFault:
            return False
        hasher = hashlib.sha256()
        try:
            for offset in range(0, size, _READ_BYTES):
                hasher.update(blob.read_at(offset, _READ_BYTES))
                tick(_READ_BYTES)
        except ImageFault:
            return False
        finally:
            os.close(blob.descriptor)
        return f"sha256:{hasher.hexdigest()}" == digest

    def discard(self, digest: str) -> int:
        """Remove a blob; the bytes of disk that it took up."""
        return remove(self.path(digest))

    def digests(self) -> Iterator[str]:
        """Of all blobs."""
        for name in os.listdir(self.home.blobs):
            if _HEX.fullmatch(name):
                yield f"sha256:{name}"

    def trim_parts(self, *, most: int = MAX_PARTS, most_bytes: int = MAX_PART_BYTES, age: float = MAX_PART_AGE) -> int:
        """Remove interrupted downloads beyond the bounds, those that grew last being kept, but none that is under way;
        the bytes of disk that they took up.
        """
        freed = 0
        for status, path in self._parts():
            most -= 1
            most_bytes -= status.st_size
            if most >= 0 and most_bytes >= 0 and time.time() - status.st_mtime < age:
                continue
            with held_if_free(self.home, download_key(f"sha256:{path.name}")) as held:
                freed += remove(path) if held else 0
        return freed

    def _parts(self) -> list[tuple[os.stat_result, Path]]:
        """Interrupted downloads, those that grew last first."""
        found = []
        for path in self.parts.iterdir():
            with suppress(FileNotFoundError):  # it went while we looked
                found.append((path.stat(), path))
        return sorted(found, key=lambda item: -item[0].st_mtime)


def remove(path: Path) -> int:
    """Remove a file; the bytes of disk that it took up. Harmless when it is gone."""
    with storage_errors(path.parent):
        try:
            taken = path.stat().st_blocks * 512
            path.unlink()
        except FileNotFoundError:
            return 0
    return taken
