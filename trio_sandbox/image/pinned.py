"""Which layers a sandbox stands on, written down once, and the root file system that they make."""

from __future__ import annotations

import json
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from trio_sandbox.errors import ImageNotFoundError
from trio_sandbox.files import publish_bytes
from trio_sandbox.home import Home
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.cache.catalog import Catalog
from trio_sandbox.image.cache.keys import blob_key, rootfs_key
from trio_sandbox.image.cache.leases import Lease
from trio_sandbox.image.cache.store import CachedStore
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.pin import NOTE, Pin, pin_of, read_pin
from trio_sandbox.image.rootfs import RootFilesystem, ensure_built
from trio_sandbox.image.squashfs import is_sound, squashfs_path


def pin(folder: Path, rootfs: RootFilesystem) -> None:
    """Write down in a sandbox's folder what it stands on. Raises StorageError."""
    publish_bytes(folder / NOTE, json.dumps(note_of(rootfs)).encode())


def note_of(rootfs: RootFilesystem) -> dict[str, Any]:
    """What `noted` finds a root file system by."""
    return Pin(rootfs.reference, rootfs.chain_id, rootfs.manifest_digest, rootfs.config).to_plain()


async def pinned(folder: Path, home: Home, lease: Lease) -> RootFilesystem:
    """The root file system that a sandbox stands on, leased. No registry is asked, whatever its tag means by now; one
    that is gone or damaged is made again, if its layers are in the cache.

    Raises ImageNotFoundError when they are not, InvalidImageError when the note about them is damaged, StorageError,
    HostNotReadyError.
    """
    return await _required(read_pin(folder), home, lease)


async def noted(plain: Any, source: Path, home: Home, lease: Lease) -> RootFilesystem:
    """The root file system of a note that `note_of` made, leased. source: where the note was. Raises as `pinned`."""
    return await _required(pin_of(plain, source), home, lease)


async def _required(note: Pin, home: Home, lease: Lease) -> RootFilesystem:
    found = await find_pinned(note, home, lease)
    if found is None:
        raise ImageNotFoundError(note.reference, f"its layers ({note.chain_id}) are not in the cache any more")
    return found


async def find_pinned(note: Pin, home: Home, lease: Lease) -> RootFilesystem | None:
    """The root file system of a pin, leased; None when too little of it is here. Raises StorageError,
    HostNotReadyError.
    """
    await lease.add([rootfs_key(note.chain_id)])
    path = squashfs_path(note.chain_id, home)
    if not is_sound(path):
        await _build_again(note.chain_id, home, lease)
    if not is_sound(path):
        return None
    return RootFilesystem(note.reference, path, note.chain_id, note.manifest_digest, note.config)


async def _build_again(chain_id: str, home: Home, lease: Lease) -> None:
    """Make a root file system of layers that are in the cache under whatever name, as far as they are."""
    for cached in Catalog(home).all():
        if cached.chain_id == chain_id:
            image = cached.contents.image
            await lease.add(blob_key(layer.place) for layer in image.layers)
            with closing(CachedStore(image, BlobCache(home))) as store, suppress(ImageFault):
                await ensure_built(image, store, home)
