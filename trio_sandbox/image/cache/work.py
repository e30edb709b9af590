"""What `Image.pull`, `load` and `save` and their commands do: pull, load, save, each returning references. Trio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import trio

from trio_sandbox.config import PullPolicy
from trio_sandbox.errors import InvalidConfigError
from trio_sandbox.home import Home
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.cache.catalog import Catalog
from trio_sandbox.image.cache.keys import blob_key
from trio_sandbox.image.cache.leases import leased
from trio_sandbox.image.cache.load import load_archive
from trio_sandbox.image.cache.names import canonical_name
from trio_sandbox.image.cache.pull import prepare_pulled
from trio_sandbox.image.cache.save import save_images
from trio_sandbox.image.progress import Meter, Progress
from trio_sandbox.pull_event import OnPull, ignore
from trio_sandbox.registry_auth import RegistryAuth


async def pull(
    name: str,
    home: Home,
    *,
    policy: PullPolicy = PullPolicy.ALWAYS,
    auth: RegistryAuth | None = None,
    on_pull: OnPull = ignore,
) -> list[str]:
    """Have an image in the cache, its root file system built. Raises what `prepare_pulled` raises."""
    with leased(home) as lease:
        await prepare_pulled(name, home, lease, policy=policy, auth=auth, on_pull=on_pull)
    return [canonical_name(name)]


async def load(
    path: Path, home: Home, *, name: str | None = None, progress: Progress | None = None, on_pull: OnPull = ignore
) -> list[str]:
    """Take the images of an archive into the cache. Raises what `load_archive` raises."""
    with leased(home) as lease:
        return await load_archive(path, home, lease, name=name, progress=progress, on_pull=on_pull)


async def save(names: Sequence[str], home: Home, target: Path, *, progress: Progress | None = None) -> list[str]:
    """Write images of the cache to an archive.

    Raises ImageNotFoundError, InvalidConfigError, StorageError. Cancellation leaves nothing, and what had the name.
    """
    if not target.parent.is_dir():
        raise InvalidConfigError([f"output_path: there is no folder {str(target.parent)!r}"])
    if target.is_dir():
        raise InvalidConfigError([f"output_path: {str(target)!r} is a folder"])
    catalog = Catalog(home)
    with leased(home) as lease:
        found = {canonical_name(name): name for name in names}
        images = [catalog.find(reference, name) for reference, name in found.items()]
        await lease.add(blob_key(digest) for image in images for digest in image.contents.blobs)
        await trio.to_thread.run_sync(save_images, images, BlobCache(home), target, Meter(progress))
    return list(found)
