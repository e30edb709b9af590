"""The root file system beneath a sandbox's writable layer, whatever its `image=` turns out to be."""

from __future__ import annotations

from pathlib import Path

from trio_sandbox.home import Home
from trio_sandbox.image.folder_root import prepare_folder
from trio_sandbox.image.reference import expanded, plain_folder
from trio_sandbox.image.rootfs import RootFilesystem, prepare_rootfs
from trio_sandbox.image_source import ImageKind, ImageSource
from trio_sandbox.pull_event import OnPull, ignore


async def prepare_root(source: ImageSource, home: Home, *, on_pull: OnPull = ignore) -> RootFilesystem:
    """Of an image or a folder, from the cache or made now. Raises what `prepare_rootfs` and `prepare_folder` raise."""
    folder = _folder(source)
    if folder is not None:
        return await prepare_folder(source.reference, folder, home, on_pull=on_pull)
    return await prepare_rootfs(source.reference, home, on_pull=on_pull)


def _folder(source: ImageSource) -> Path | None:
    return plain_folder(source.reference) if source.kind is ImageKind.OCI else expanded(source.reference)
