"""Which layers a sandbox stands on, written down once: its tag may mean another image tomorrow."""

from __future__ import annotations

import json
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import attrs

from trio_sandbox.errors import ImageNotFoundError, InvalidImageError
from trio_sandbox.files import publish_bytes
from trio_sandbox.home import Home
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.cache.catalog import Catalog
from trio_sandbox.image.cache.keys import blob_key, rootfs_key
from trio_sandbox.image.cache.leases import Lease
from trio_sandbox.image.cache.store import CachedStore
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.oci import ImageConfig
from trio_sandbox.image.rootfs import RootFilesystem, ensure_built
from trio_sandbox.image.squashfs import is_sound, squashfs_path

NAME = "image.json"


def pin(folder: Path, rootfs: RootFilesystem) -> None:
    """Write down in a sandbox's folder what it stands on. Raises StorageError."""
    publish_bytes(folder / NAME, json.dumps(note_of(rootfs)).encode())


def note_of(rootfs: RootFilesystem) -> dict[str, Any]:
    """What `noted` finds a root file system by."""
    return {
        "reference": rootfs.reference,
        "chain_id": rootfs.chain_id,
        "manifest_digest": rootfs.manifest_digest,
        "config": attrs.asdict(rootfs.config),
    }


async def pinned(folder: Path, home: Home, lease: Lease) -> RootFilesystem:
    """The root file system that a sandbox stands on, leased. No registry is asked, whatever its tag means by now; one
    that is gone or damaged is made again, if its layers are in the cache.

    Raises ImageNotFoundError when they are not, InvalidImageError when the note about them is damaged, StorageError,
    HostNotReadyError.
    """
    try:
        plain = json.loads((folder / NAME).read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidImageError(str(folder), f"what the sandbox stands on cannot be read: {error}") from error
    return await noted(plain, folder, home, lease)


async def noted(plain: Any, source: Path, home: Home, lease: Lease) -> RootFilesystem:
    """The root file system of a note that `note_of` made, leased. source: where the note was. Raises as `pinned`."""
    try:
        config = dict(plain["config"])
        config |= {name: tuple(config[name]) for name in ("env", "entrypoint", "cmd")}
        reference, chain_id, digest = (str(plain[key]) for key in ("reference", "chain_id", "manifest_digest"))
        image = ImageConfig(**config)
    except (ValueError, LookupError, TypeError) as error:
        raise InvalidImageError(str(source), f"what the sandbox stands on cannot be read: {error}") from error
    await lease.add([rootfs_key(chain_id)])
    path = squashfs_path(chain_id, home)
    if not is_sound(path):
        await _build_again(chain_id, home, lease)
    if not is_sound(path):
        raise ImageNotFoundError(reference, f"its layers ({chain_id}) are not in the cache any more")
    return RootFilesystem(reference, path, chain_id, digest, image)


async def _build_again(chain_id: str, home: Home, lease: Lease) -> None:
    """Make a root file system of layers that are in the cache under whatever name, as far as they are."""
    for cached in Catalog(home).all():
        if cached.chain_id == chain_id:
            image = cached.contents.image
            await lease.add(blob_key(layer.place) for layer in image.layers)
            with closing(CachedStore(image, BlobCache(home))) as store, suppress(ImageFault):
                await ensure_built(image, store, home)


def pinned_chain_ids(home: Home) -> set[str]:
    """Of all sandboxes that stay. What cannot be read counts for nothing: its sandbox cannot start either."""
    found = set()
    for note in home.folder("sandboxes").glob(f"*/{NAME}"):
        try:
            found.add(str(json.loads(note.read_bytes())["chain_id"]))
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return found
