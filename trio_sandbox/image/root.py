"""The root file system beneath a sandbox's writable layer, whatever its `image=` turns out to be."""

from __future__ import annotations

from pathlib import Path

from trio_sandbox.config import PullPolicy
from trio_sandbox.home import Home
from trio_sandbox.image.cache.leases import Lease
from trio_sandbox.image.cache.pull import prepare_pulled
from trio_sandbox.image.folder_root import prepare_folder
from trio_sandbox.image.reference import expanded, names_registry_image, plain_folder
from trio_sandbox.image.rootfs import RootFilesystem, prepare_rootfs
from trio_sandbox.image_source import ImageKind, ImageSource
from trio_sandbox.pull_event import OnPull, ignore
from trio_sandbox.registry_auth import RegistryAuth


async def prepare_root(
    source: ImageSource,
    home: Home,
    lease: Lease,
    *,
    policy: PullPolicy = PullPolicy.IF_MISSING,
    auth: RegistryAuth | None = None,
    on_pull: OnPull = ignore,
) -> RootFilesystem:
    """Of an image or a folder, from the cache or made now. policy, auth: of a registry's image. lease: keeps it from
    being removed, as long as the lease lasts.

    Raises what `prepare_pulled`, `prepare_rootfs` and `prepare_folder` raise.
    """
    folder = _folder(source)
    if folder is not None:
        return await prepare_folder(source.reference, folder, home, on_pull=on_pull)
    if names_registry_image(source.reference):
        return await prepare_pulled(source.reference, home, lease, policy=policy, auth=auth, on_pull=on_pull)
    return await prepare_rootfs(source.reference, home, on_pull=on_pull, lease=lease)


def _folder(source: ImageSource) -> Path | None:
    return plain_folder(source.reference) if source.kind is ImageKind.OCI else expanded(source.reference)
