"""Images: what `image=` takes, and the images in the cache. anyio only.

What only looks at the cache runs in a worker thread; what may take long, and can be called off, in a process of its own
(`forked.py`), whose end undoes what it had begun.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Sequence

from trio_sandbox.client.creation import in_thread
from trio_sandbox.client.forked import ForkedWork
from trio_sandbox.client.shielded import shielded
from trio_sandbox.config import PullPolicy
from trio_sandbox.errors import InvalidConfigError
from trio_sandbox.home import Home
from trio_sandbox.image_info import ImageDetail, ImageInfo, ImagePruneReport, ImageUsage
from trio_sandbox.image_source import UPPER_SIZE_MIB, DiskImageFormat, ImageKind, ImageSource
from trio_sandbox.process.image_order import ImageOrder, ImageWork
from trio_sandbox.pull_event import OnPull, ignore
from trio_sandbox.registry_auth import RegistryAuth, auth_of, auth_problem


class Image:
    """Root file systems by name: factories of what `image=` takes, and the images of registries and archives that are
    in the cache of a data folder. home: that folder (`Home.default()`).
    """

    # -- what image= takes

    @staticmethod
    def oci(reference: str | os.PathLike[str], *, upper_size_mib: int | None = None) -> ImageSource:
        """An OCI image: a name, or the path of a layout folder or an archive.

        upper_size_mib: size of the writable layer in MiB, 16 to 1,048,576 (4096). It is sparse: what is not written
        takes no room.
        """
        return ImageSource(ImageKind.OCI, reference, UPPER_SIZE_MIB if upper_size_mib is None else upper_size_mib)

    @staticmethod
    def disk(
        path: str | os.PathLike[str], *, fstype: str | None = None, format: str | DiskImageFormat | None = None
    ) -> ImageSource:
        """A disk image with a root file system on it or on one of its partitions.

        The guest writes to the file itself; nothing is copied, so each sandbox needs a file of its own. fstype: of the
        root (found by looking). format: "qcow2", "raw" or "vmdk" (by the extension).
        """
        return ImageSource(ImageKind.DISK, path, fstype=fstype, format=format)

    @staticmethod
    def bind(path: str | os.PathLike[str], *, upper_size_mib: int | None = None) -> ImageSource:
        """A folder of the host with a root file system in it. The folder is read when the sandbox is created and never
        written to. upper_size_mib: as for `oci`.
        """
        return ImageSource(ImageKind.BIND, path, UPPER_SIZE_MIB if upper_size_mib is None else upper_size_mib)

    # -- the cache

    @staticmethod
    async def list(*, home: Home | None = None) -> builtins.list[ImageInfo]:
        """All images of the cache, by reference. Raises StorageError."""
        return await in_thread(_list, home or Home.default())

    @staticmethod
    async def get(reference: str, *, home: Home | None = None) -> ImageInfo:
        """What is known of an image. Raises ImageNotFoundError when it is not in the cache, InvalidConfigError."""
        return (await Image.inspect(reference, home=home)).info

    @staticmethod
    async def inspect(reference: str, *, home: Home | None = None) -> ImageDetail:
        """All that is known of an image: its configuration and its layers too. Raises as `get`."""
        return await in_thread(_inspect, reference, home or Home.default())

    @staticmethod
    async def usage(*, home: Home | None = None) -> ImageUsage:
        """What all images take up together. Raises StorageError."""
        return await in_thread(_usage, home or Home.default())

    @staticmethod
    async def remove(reference: str, *, force: bool = False, home: Home | None = None) -> ImagePruneReport:
        """Remove an image from the cache, but for what it shares with others.

        Raises ImageNotFoundError, InvalidConfigError, StorageError, and ImageInUseError when sandboxes stand on it, run
        or not, and it has no other name. force: remove it all the same; the root file system that sandboxes stand on
        stays as long as they do, so they can be started. Cancellation: it may be removed all the same.
        """
        return await in_thread(_remove, reference, force, home or Home.default())

    @staticmethod
    async def prune(*, unused: bool = False, home: Home | None = None) -> ImagePruneReport:
        """Remove what no image and no sandbox needs: what a moved tag has left, interrupted downloads. unused: all
        images that no sandbox stands on, too. Raises StorageError. Cancellation: it goes on without us.
        """
        return await in_thread(_prune, unused, home or Home.default())

    @staticmethod
    async def pull(
        reference: str,
        *,
        policy: PullPolicy | str = PullPolicy.ALWAYS,
        registry_auth: RegistryAuth | None = None,
        on_event: OnPull = ignore,
        home: Home | None = None,
    ) -> ImageInfo:
        """Have an image of a registry in the cache, ready for sandboxes.

        policy: by default its registry is asked what the name means today; what is here already is not fetched again.
        registry_auth: credentials, before those that this machine knows. on_event: called with each PullEvent.

        Raises InvalidConfigError, ImageNotFoundError, ImagePullError, InvalidImageError, UnsupportedError,
        StorageError, HostNotReadyError. Cancellation: what has come is kept, to go on from.
        """
        if policy not in builtins.list(PullPolicy):
            raise InvalidConfigError([f"policy: {policy!r} is not one of {', '.join(PullPolicy)}"])
        if registry_auth is not None and (problem := auth_problem(registry_auth)):
            raise InvalidConfigError([f"registry_auth: {problem}"])
        home = home or Home.default()
        order = ImageOrder(ImageWork.PULL, home, (reference,), policy=PullPolicy(policy), auth=auth_of(registry_auth))
        return await Image.get((await _done(order, on_event))[0], home=home)

    @staticmethod
    async def load(
        input_path: str | os.PathLike[str], *, tag: str | None = None, home: Home | None = None
    ) -> builtins.list[ImageInfo]:
        """Take the images of an OCI or Docker archive into the cache, under the names that it gives them.

        tag: the name of the one image that is in it, instead. Raises ImageNotFoundError, InvalidConfigError when it
        names an image neither, InvalidImageError, StorageError, HostNotReadyError. Cancellation: images that were
        loaded whole stay.
        """
        home = home or Home.default()
        path = os.path.abspath(os.fsdecode(input_path))
        references = await _done(ImageOrder(ImageWork.LOAD, home, () if tag is None else (tag,), path))
        return [await Image.get(reference, home=home) for reference in references]

    @staticmethod
    async def save(
        references: str | Sequence[str], *, output_path: str | os.PathLike[str], home: Home | None = None
    ) -> None:
        """Write images of the cache to an OCI archive, the same bytes for the same images. A file that has the name is
        replaced, when the archive is whole.

        Raises ImageNotFoundError, InvalidConfigError, StorageError. Cancellation leaves nothing.
        """
        names = (references,) if isinstance(references, str) else tuple(references)
        path = os.path.abspath(os.fsdecode(output_path))
        await _done(ImageOrder(ImageWork.SAVE, home or Home.default(), names, path))


async def _done(order: ImageOrder, on_event: OnPull = ignore) -> Sequence[str]:
    """Have a process do it; the references that it was about. Cancellation: it is undone when this returns."""
    work = await ForkedWork.begin(order.to_json())
    try:
        while (event := await work.next_event()) is not None:
            on_event(event)
    finally:
        await shielded(work.abort)  # noqa: ASYNC102 - it is
    assert work.report.result is not None
    return work.report.result


# What of the image layer does no async I/O is imported when it is first needed: see `tests/test_public_names.py`.


def _list(home: Home) -> list[ImageInfo]:
    from trio_sandbox.image.cache.catalog import Catalog

    catalog = Catalog(home)
    return [catalog.info(image) for image in catalog.all()]


def _inspect(name: str, home: Home) -> ImageDetail:
    from trio_sandbox.image.cache.catalog import Catalog
    from trio_sandbox.image.cache.names import canonical_name

    catalog = Catalog(home)
    return catalog.detail(catalog.find(canonical_name(name), name))


def _usage(home: Home) -> ImageUsage:
    from trio_sandbox.image.cache.collect import usage

    return usage(home)


def _remove(name: str, force: bool, home: Home) -> ImagePruneReport:
    from trio_sandbox.image.cache.collect import remove_image
    from trio_sandbox.image.cache.names import canonical_name

    return remove_image(home, canonical_name(name), name, force=force)


def _prune(unused: bool, home: Home) -> ImagePruneReport:
    from trio_sandbox.image.cache.collect import prune

    return prune(home, unused=unused)
