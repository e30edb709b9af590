"""Taking the images of an archive into the cache, under the names that it gives them. Trio.

Layers are copied as they are stored, and verified by being built: an image whose archive is damaged gets no name here.
A Docker archive has no manifest; one is made, always the same of the same image.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import trio

from trio_sandbox.errors import ImageNotFoundError, InvalidConfigError
from trio_sandbox.files import anonymous_file, storage_errors
from trio_sandbox.home import Home
from trio_sandbox.image.archive import ArchiveStore, docker_tags
from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.cache.contents import contents_of
from trio_sandbox.image.cache.keys import blob_key, rootfs_key
from trio_sandbox.image.cache.leases import Lease
from trio_sandbox.image.cache.names import canonical_name
from trio_sandbox.image.cache.records import Records
from trio_sandbox.image.cache.store import CachedStore
from trio_sandbox.image.faults import ImageFault, NoSuchImage, blame
from trio_sandbox.image.layers import compression_of
from trio_sandbox.image.limits import DEFAULT_LIMITS
from trio_sandbox.image.oci import (
    CONFIG_TYPES,
    LAYER_TYPE,
    MANIFEST_TYPES,
    Descriptor,
    Image,
    Layer,
    digest_of,
    find_manifest,
    host_architecture,
    parse_index,
    parse_manifest,
    read_verified,
    resolve,
)
from trio_sandbox.image.progress import Meter, Progress
from trio_sandbox.image.rootfs import ensure_built
from trio_sandbox.pull_event import OnPull, ignore

PIECE = 1 << 20


@attrs.frozen
class _Archived:
    """One image of an archive. manifest: None in a Docker archive; names: those that are whole."""

    names: tuple[str, ...]
    image: Image
    config: bytes
    manifest: tuple[Descriptor, bytes] | None = None


async def load_archive(
    path: Path,
    home: Home,
    lease: Lease,
    *,
    name: str | None = None,
    progress: Progress | None = None,
    on_pull: OnPull = ignore,
) -> list[str]:
    """Take all images of an OCI or Docker archive that are for this machine into the cache; their references.

    name: for the one image that is in it, instead of its own. Raises ImageNotFoundError, InvalidConfigError when an
    image has no whole name and none is given, InvalidImageError, StorageError, HostNotReadyError. Cancellation: images
    that were loaded whole stay.
    """
    meter = Meter(progress)
    with blame(str(path)):
        store = await trio.to_thread.run_sync(_opened, path, home, meter)
        with closing(store):
            found = await trio.to_thread.run_sync(_images, store)
            named = [(archived, _references(archived, name, str(path), len(found))) for archived in found]
            for archived, references in named:
                manifest = await trio.to_thread.run_sync(_taken_in, archived, store, home, lease, meter)
                await _build(manifest, home, lease, on_pull)
                for reference in references:
                    Records(home).publish(reference, manifest)
    return [reference for _, references in named for reference in references]


def _opened(path: Path, home: Home, meter: Meter) -> ArchiveStore:
    try:
        with storage_errors(path):
            return ArchiveStore.open(path, None, home, meter)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageNotFoundError(str(path), "there is no such file") from None


def _images(store: ArchiveStore) -> list[_Archived]:
    index = store.index()
    if index is None:
        return [_docker_image(store, entry) for entry in store.docker_entries()]
    found: dict[str, _Archived] = {}
    others: list[NoSuchImage] = []
    for entry in parse_index(index):
        try:
            archived = _oci_image(store, entry)
        except NoSuchImage as fault:  # for another machine
            others.append(fault)
            continue
        digest = archived.image.manifest_digest
        known = found.get(digest)
        found[digest] = attrs.evolve(archived, names=(*known.names, *archived.names)) if known else archived
    if not found:
        raise others[0] if others else ImageFault("it holds no image")
    return list(found.values())


def _oci_image(store: ArchiveStore, entry: Descriptor) -> _Archived:
    manifest = find_manifest(entry, store.read, host_architecture())
    data = read_verified(manifest, store.read)
    config = parse_manifest(data, manifest.media_type)[0]
    name = entry.image_name or entry.ref_name or ""
    # A reference name without a repository is a tag: of what, nobody knows.
    names = (name,) if "/" in name or ":" in name else ()
    return _Archived(names, resolve(manifest, store.read), read_verified(config, store.read), (manifest, data))


def _docker_image(store: ArchiveStore, entry: dict[str, Any]) -> _Archived:
    return _Archived(tuple(docker_tags(entry)), *store.docker_image(entry))


def _references(archived: _Archived, name: str | None, path: str, count: int) -> list[str]:
    if name is not None:
        if count > 1:
            raise InvalidConfigError([f"name: {path!r} holds {count} images, which cannot all be {name!r}"])
        return [canonical_name(name)]
    if not archived.names:
        raise InvalidConfigError([f"name: required, since {path!r} does not say what its image is called"])
    return list(dict.fromkeys(map(canonical_name, archived.names)))


def _taken_in(archived: _Archived, store: ArchiveStore, home: Home, lease: Lease, meter: Meter) -> Descriptor:
    """Copy an image's blobs into the cache; its manifest. In a worker thread."""
    blobs = BlobCache(home)
    meter.begin("copying layers", None)
    layers = [_copied(layer, store.layer(layer), blobs, lease, meter) for layer in archived.image.layers]
    config = Descriptor(CONFIG_TYPES[0], digest_of(archived.config), len(archived.config))
    if archived.manifest is not None:
        manifest, data = archived.manifest
    else:
        data = _manifest(config, layers)
        manifest = Descriptor(MANIFEST_TYPES[0], digest_of(data), len(data))
    trio.from_thread.run(lease.add, [blob_key(manifest.digest), blob_key(config.digest)])
    blobs.add_document(archived.config)
    blobs.add_document(data)
    return manifest


def _copied(layer: Layer, blob: Blob, blobs: BlobCache, lease: Lease, meter: Meter) -> Descriptor:
    """Take one layer in, as it is stored."""
    descriptor = anonymous_file(blobs.home.blobs)
    try:
        hasher = hashlib.sha256()
        with storage_errors(blobs.home.blobs):
            for offset in range(0, blob.size, PIECE):
                data = blob.read_at(offset, PIECE)
                hasher.update(data)
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                meter.add(len(data))
        digest = f"sha256:{hasher.hexdigest()}"
        if layer.size is not None and digest != layer.place:
            raise ImageFault(f"blob {layer.place} is damaged: its bytes hash to {digest}")
        trio.from_thread.run(lease.add, [blob_key(digest)])
        blobs.add_file(descriptor, digest)
    finally:
        os.close(descriptor)
    compression = compression_of(blob)
    return Descriptor(LAYER_TYPE + ("" if compression == "none" else f"+{compression}"), digest, blob.size)


def _manifest(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    def plain(found: Descriptor) -> dict[str, Any]:
        return {"mediaType": found.media_type, "digest": found.digest, "size": found.size}

    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPES[0],
        "config": plain(config),
        "layers": [plain(layer) for layer in layers],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


async def _build(manifest: Descriptor, home: Home, lease: Lease, on_pull: OnPull) -> None:
    blobs = BlobCache(home)
    image = contents_of(manifest, blobs).image
    await lease.add([rootfs_key(image.chain_id)])
    with closing(CachedStore(image, blobs)) as store:
        await ensure_built(image, store, home, on_pull=on_pull, limits=DEFAULT_LIMITS)
