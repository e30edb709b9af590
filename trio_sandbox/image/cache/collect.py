"""Removing images, and what nothing needs. Sync.

What is removed is first locked against those who lease it (`leases.py`), and then looked at again: whoever published a
reference to it meanwhile has let go of a lease that we could not have broken. So nothing that a pull or a sandbox
stands on goes, and a removal that is killed in the middle leaves only what the next one removes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress

import attrs

from trio_sandbox.errors import ImageInUseError, ImageNotFoundError, UnsupportedError
from trio_sandbox.home import Home
from trio_sandbox.image.cache.blobs import BlobCache, remove
from trio_sandbox.image.cache.catalog import CachedImage, Catalog, taken
from trio_sandbox.image.cache.keys import blob_key, rootfs_key
from trio_sandbox.image.cache.records import Records
from trio_sandbox.image.faults import ImageFault, NoSuchImage
from trio_sandbox.image.layout import LayoutStore
from trio_sandbox.image.pin import NOTE as PIN
from trio_sandbox.image.squashfs import chain_id_of, squashfs_path
from trio_sandbox.image_info import ImagePruneReport, ImageUsage
from trio_sandbox.locks import held_if_free, lock_file, try_lock

SNAPSHOT_NOTE = "snapshot.json"
"""In the folder of a snapshot, written last; its `image` is a pin too (`snapshot/description.py`)."""
UNNAMED_AGE = 3600.0
"""Seconds after which nobody is about to name a file any more."""


def remove_image(home: Home, reference: str, name: str, *, force: bool = False) -> ImagePruneReport:
    """Forget a reference, and remove what only it needed. name: as the user wrote it.

    Raises ImageNotFoundError, StorageError, and ImageInUseError when sandboxes stand on the image and no other
    reference means it. force: forget it all the same; what sandboxes stand on stays as long as they do.
    """
    catalog = Catalog(home)
    records = Records(home)
    if records.find(reference) is None:
        raise ImageNotFoundError(name, "it is not in the cache")
    try:
        image = catalog.find(reference, name)
    except ImageNotFoundError:  # damaged: nobody can use it
        records.discard(reference)
        return attrs.evolve(sweep(home), images_removed=(reference,))
    if force or _has_other_name(image, catalog):
        records.discard(reference)
    elif (users := _discard_unless_used(image, home)) is not None:
        raise ImageInUseError(name, f"{users}; end and remove what does first, or force it")
    return attrs.evolve(sweep(home, image.contents.blobs, [image.chain_id]), images_removed=(reference,))


def prune(home: Home, *, unused: bool = False) -> ImagePruneReport:
    """Remove what no image and no sandbox needs, interrupted downloads too. unused: first forget all images that no
    sandbox stands on. Raises StorageError.
    """
    removed = []
    if unused:
        catalog = Catalog(home)
        for image in catalog.all():
            if _discard_unless_used(image, home) is None:
                removed.append(image.record.reference)
    freed = BlobCache(home).trim_parts(most=0) + _remove_useless(home)
    report = sweep(home)
    return attrs.evolve(report, images_removed=tuple(removed), bytes_reclaimed=report.bytes_reclaimed + freed)


def usage(home: Home) -> ImageUsage:
    """What all of the cache takes up."""
    catalog = Catalog(home)
    images = catalog.all()
    sizes: dict[str, int] = {}
    for image in images:
        sizes.update(image.contents.blobs)
    needed = _Needed.now(home)
    blobs = {digest: taken(catalog.blobs.path(digest)) for digest in catalog.blobs.digests()}
    roots = {chain_id: taken(squashfs_path(chain_id, home)) for chain_id in _built(home)}
    parts = sum(map(taken, catalog.blobs.parts.iterdir()))
    loose = sum(size for digest, size in blobs.items() if digest not in needed.digests)
    loose += sum(size for chain_id, size in roots.items() if chain_id not in needed.chain_ids)
    everything = sum(blobs.values()) + sum(roots.values()) + parts
    return ImageUsage(len(images), sum(sizes.values()), everything, loose + parts)


def sweep(home: Home, digests: Iterable[str] | None = None, chain_ids: Iterable[str] | None = None) -> ImagePruneReport:
    """Remove those blobs and root file systems, of all or of the ones given, that nobody needs or uses."""
    blobs = BlobCache(home)
    blobs_removed = rootfs_removed = freed = 0
    with lock_file(home) as descriptor:
        candidates = list(blobs.digests() if digests is None else digests)
        ours = [digest for digest in candidates if try_lock(descriptor, blob_key(digest))]
        chains = list(_built(home) if chain_ids is None else chain_ids)
        our_chains = [chain_id for chain_id in chains if try_lock(descriptor, rootfs_key(chain_id))]
        needed = _Needed.now(home)
        for digest in ours:
            if digest not in needed.digests and blobs.path(digest).exists():
                freed += blobs.discard(digest)
                blobs_removed += 1
        for chain_id in our_chains:
            path = squashfs_path(chain_id, home)
            if chain_id not in needed.chain_ids and path.exists():
                freed += remove(path)
                rootfs_removed += 1
    return ImagePruneReport((), blobs_removed, rootfs_removed, freed)


def _remove_useless(home: Home) -> int:
    """Remove what another version made, and what was about to replace a file when its process was killed
    (`files.publish`); the bytes freed.
    """
    folders = (home.blobs, home.rootfs, home.folder("cache", "references"))
    old = time.time() - UNNAMED_AGE
    useless = [path for folder in folders for path in folder.glob(".*") if path.stat().st_mtime < old]
    useless += [path for path in home.rootfs.glob("*.squashfs") if chain_id_of(path) is None]
    return sum(map(remove, useless))


@attrs.frozen
class _Needed:
    """What images, sandboxes that stay, snapshots, and images that are not in the cache need of it."""

    digests: frozenset[str]
    chain_ids: frozenset[str]

    @classmethod
    def now(cls, home: Home) -> _Needed:
        images = Catalog(home).all()
        digests = frozenset(digest for image in images for digest in image.contents.blobs)
        # A packed folder has a note of its own, by which it is kept (`image/folder_root.py`).
        folders = {f"sha256:{note.name}" for note in home.folder("cache", "folders").iterdir()}
        chain_ids = {image.chain_id for image in images} | set(pins(home)) | folders | set(_local_chain_ids(home))
        return cls(digests, frozenset(chain_ids))


def pins(home: Home) -> Mapping[str, list[str]]:
    """By chain id, the sandboxes that stay and the snapshots that stand on these layers: "sandbox 'one'"."""
    found: dict[str, list[str]] = {}
    for kind, note, places in (
        ("sandbox", PIN, home.folder("sandboxes").glob(f"*/{PIN}")),
        ("snapshot", SNAPSHOT_NOTE, home.folder("snapshots").glob(f"[!.]*/{SNAPSHOT_NOTE}")),
    ):
        for place in sorted(places):
            # What cannot be read counts for nothing: nobody can start from it either.
            with suppress(OSError, ValueError, LookupError, TypeError):
                plain = json.loads(place.read_bytes())
                pin = plain if note == PIN else plain["image"]
                found.setdefault(str(pin["chain_id"]), []).append(f"{kind} {place.parent.name!r}")
    return found


def _built(home: Home) -> Iterator[str]:
    """The chain ids of all root file systems."""
    for path in home.rootfs.iterdir():
        if (chain_id := chain_id_of(path)) is not None:
            yield chain_id


def _local_chain_ids(home: Home) -> Iterator[str]:
    for layout in home.images.glob("local/*"):
        with suppress(ImageFault, NoSuchImage, UnsupportedError, OSError):
            with closing(LayoutStore.open(layout, None)) as store:
                yield store.image().chain_id


def _has_other_name(image: CachedImage, catalog: Catalog) -> bool:
    return any(
        other.chain_id == image.chain_id and other.record.reference != image.record.reference for other in catalog.all()
    )


def _discard_unless_used(image: CachedImage, home: Home) -> str | None:
    """Forget an image while nobody can begin to use it; else say who uses it."""
    with held_if_free(home, rootfs_key(image.chain_id)) as is_free:
        names = pins(home).get(image.chain_id, [])
        if names:
            return f"{', '.join(names)} {'stands' if len(names) == 1 else 'stand'} on it"
        if not is_free:
            return "a running sandbox stands on it, or it is being pulled"
        Records(home).discard(image.record.reference)
    return None
