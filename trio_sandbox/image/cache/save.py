"""Writing images of the cache to an archive: a tar of an OCI layout, the same bytes for the same images.

Every blob is hashed as it is written, so a damaged one is an error and not a damaged archive. Blocks: runs in a worker
thread.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import attrs

from trio_sandbox.errors import ImageNotFoundError
from trio_sandbox.files import anonymous_file, publish, storage_errors
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.cache.catalog import CachedImage
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.layout import INDEX_FILE, LAYOUT_FILE, LAYOUT_VERSION
from trio_sandbox.image.oci import INDEX_TYPES, NAME_ANNOTATION, REF_NAME, host_architecture
from trio_sandbox.image.progress import Meter

FILE_MODE = 0o644


def save_images(images: Sequence[CachedImage], blobs: BlobCache, target: Path, meter: Meter) -> None:
    """Write `images` to a new file, which gets the name `target` when it is whole.

    Raises ImageNotFoundError when a layer is not in the cache any more or damaged, StorageError.
    """
    descriptor = anonymous_file(target.parent)
    try:
        with open(descriptor, "wb", closefd=False) as file, storage_errors(target.parent):
            write_images(images, blobs, file, meter)
        publish(descriptor, target, FILE_MODE)
    finally:
        os.close(descriptor)


def write_images(images: Sequence[CachedImage], blobs: BlobCache, file: IO[bytes], meter: Meter) -> None:
    """Write the archive of `images` to an open file. Raises as `save_images`, and OSError."""
    owners = {digest: image for image in reversed(images) for digest in image.contents.blobs}
    sizes = {digest: image.contents.blobs[digest] for digest, image in owners.items()}
    meter.begin("writing the archive", sum(sizes.values()))
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        _add(archive, LAYOUT_FILE, _json({"imageLayoutVersion": LAYOUT_VERSION}))
        _add(archive, INDEX_FILE, _json(_index(images)))
        for digest in sorted(sizes):
            try:
                _copy(archive, digest, sizes[digest], blobs, meter)
            except ImageFault as fault:
                name = owners[digest].record.reference
                raise ImageNotFoundError(name, f"it cannot be saved: {fault}; pull it again") from fault


def _index(images: Sequence[CachedImage]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": [_entry(image) for image in images]}


def _entry(image: CachedImage) -> dict[str, Any]:
    manifest, reference = image.contents.manifest, image.record.reference
    return {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": manifest.size,
        "annotations": {NAME_ANNOTATION: reference, REF_NAME: reference},
        "platform": {"architecture": host_architecture(), "os": "linux"},
    }


def _json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _member(name: str, size: int) -> tarfile.TarInfo:
    """Nothing of this machine or this day is in it."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, FILE_MODE
    return member


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    archive.addfile(_member(name, len(data)), io.BytesIO(data))


def _copy(archive: tarfile.TarFile, digest: str, size: int, blobs: BlobCache, meter: Meter) -> None:
    blob = blobs.open(digest, size)
    try:
        source = _Hashing(os.fdopen(os.dup(blob.descriptor), "rb"), meter)
        with source.file:
            archive.addfile(_member("blobs/" + digest.replace(":", "/"), size), source)  # type: ignore[arg-type]
    finally:
        os.close(blob.descriptor)
    if f"sha256:{source.hasher.hexdigest()}" != digest:
        raise ImageFault(f"blob {digest} is damaged")


@attrs.define(eq=False)
class _Hashing:
    """A file that hashes what is read of it."""

    file: IO[bytes]
    meter: Meter
    hasher: Any = attrs.field(factory=hashlib.sha256)

    def read(self, amount: int) -> bytes:
        data = self.file.read(amount)
        self.hasher.update(data)
        self.meter.add(len(data))
        return data
