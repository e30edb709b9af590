"""The root file system and the disk of a new sandbox that begins where a snapshot left off. Trio."""

from __future__ import annotations

import os
from functools import partial

import trio

from trio_sandbox.config import PullPolicy, SandboxConfig
from trio_sandbox.errors import ImageError, ImageNotFoundError, ImagePullError, InvalidConfigError, InvalidImageError
from trio_sandbox.files import anonymous_copy
from trio_sandbox.home import Home
from trio_sandbox.image.cache.leases import Lease
from trio_sandbox.image.cache.pull import prepare_pulled
from trio_sandbox.image.pin import Pin
from trio_sandbox.image.pinned import find_pinned
from trio_sandbox.image.reference import names_registry_image
from trio_sandbox.image.registry.reference import RegistryReference
from trio_sandbox.image.rootfs import RootFilesystem
from trio_sandbox.pull_event import OnPull
from trio_sandbox.snapshot.description import DISK_FILE
from trio_sandbox.snapshot.store import find

REMEDY = "pull or load that image, or save the snapshot together with it (`with_image`) and load that"


async def prepare_snapshot(
    config: SandboxConfig, home: Home, lease: Lease, on_pull: OnPull
) -> tuple[RootFilesystem, int]:
    """What `snapshot=` means: the root file system, leased, and an open copy of the disk, which the caller closes.

    The sizes of its files are checked, and not their digests: that would read all of it at every start. Raises
    SnapshotError, InvalidConfigError, StorageError, and for an image that is not here and cannot be pulled ImageError.
    Cancellation leaves nothing.
    """
    assert config.snapshot is not None
    artifact = await trio.to_thread.run_sync(find, home, os.fspath(config.snapshot))
    rootfs = await root_of(artifact.description.image, config, home, lease, on_pull)
    with artifact.opened() as files:
        copy = partial(anonymous_copy, files[DISK_FILE], home.scratch, trio.from_thread.check_cancelled)
        return rootfs, await trio.to_thread.run_sync(copy)


async def root_of(image: Pin, config: SandboxConfig, home: Home, lease: Lease, on_pull: OnPull) -> RootFilesystem:
    """By the layers, which are what the disk was written on; by the digest from a registry where they are missing."""
    found = await find_pinned(image, home, lease)
    if found is not None:
        return found
    if config.pull_policy is PullPolicy.NEVER or not image.manifest_digest or not names_registry_image(image.reference):
        raise _missing(image)
    try:
        name = f"{RegistryReference.parse(image.reference).name}@{image.manifest_digest}"
        pulled = await prepare_pulled(name, home, lease, auth=config.registry_auth, on_pull=on_pull)
    except (InvalidConfigError, ImageNotFoundError, ImagePullError) as error:
        raise _missing(image) from error
    if pulled.chain_id != image.chain_id:
        raise InvalidImageError(image.reference, f"{image.manifest_digest} has other layers than the snapshot's")
    found = await find_pinned(image, home, lease)
    assert found is not None
    return found


def _missing(image: Pin) -> ImageError:
    return ImageNotFoundError(image.reference, f"its layers ({image.chain_id}) are not here; {REMEDY}")
