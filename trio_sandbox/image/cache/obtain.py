"""An image by its name: found in the cache, or pulled into it, as the pull policy has it. Trio.

What is here is looked up in the order of its price. A sound root file system needs no layers; layers need no registry;
and where something is missing or damaged, the image counts as missing and is pulled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import attrs
import trio

from trio_sandbox.config import PullPolicy
from trio_sandbox.errors import ImageNotFoundError
from trio_sandbox.home import Home
from trio_sandbox.image.cache.arrivals import NOTHING, Arrivals
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.cache.contents import contents_of
from trio_sandbox.image.cache.download import download_layers, missing_layers
from trio_sandbox.image.cache.keys import blob_key, rootfs_key
from trio_sandbox.image.cache.leases import Lease
from trio_sandbox.image.cache.records import Record, Records
from trio_sandbox.image.cache.store import CachedStore, is_whole
from trio_sandbox.image.faults import ImageFault, NoSuchImage
from trio_sandbox.image.limits import DEFAULT_LIMITS, Limits
from trio_sandbox.image.oci import Descriptor, Image, parse_manifest
from trio_sandbox.image.progress import Meter
from trio_sandbox.image.rootfs import ensure_built, resolved_event
from trio_sandbox.image.squashfs import is_sound, squashfs_path
from trio_sandbox.pull_event import OnPull


class Resolved(Protocol):
    """What a reference means in its registry: an image, its documents by digest, and what its manifest names."""

    @property
    def image(self) -> Image: ...

    @property
    def documents(self) -> Mapping[str, bytes]: ...

    @property
    def manifest(self) -> Descriptor: ...

    @property
    def layers(self) -> Sequence[Descriptor]: ...


class Remote(Protocol):
    """The image in its registry. Both raise ImagePullError and ImageNotFoundError."""

    async def resolve(self) -> Resolved:
        """What the reference means there now."""
        ...

    async def fetch(self, descriptor: Descriptor, part: Path, /) -> None:
        """See `download.Fetch`."""
        ...


@attrs.frozen
class Obtaining:
    """One image that somebody wants. reference: canonical; it is the key of its record. name: as the user wrote it."""

    reference: str
    name: str
    home: Home
    policy: PullPolicy
    lease: Lease
    on_pull: OnPull
    limits: Limits = DEFAULT_LIMITS

    @property
    def blobs(self) -> BlobCache:
        return BlobCache(self.home)

    async def run(self, remote: Callable[[], Remote]) -> Image:
        """The image, its root file system built, and leased. remote: called when the registry must be asked.

        Raises ImageNotFoundError, ImagePullError, ImageFault, NoSuchImage, StorageError, HostNotReadyError.
        Cancellation: downloads are kept, to be resumed.
        """
        record = Records(self.home).find(self.reference)
        if record is not None and self.policy is not PullPolicy.ALWAYS:
            image = await self._here(record)
            if image is not None:
                Records(self.home).touch(self.reference)
                return image
        if self.policy is PullPolicy.NEVER:
            missing = "is not in the cache" if record is None else "is not whole in the cache any more"
            raise ImageNotFoundError(self.name, f"it {missing}, and the pull policy is 'never'; pull it first")
        return await self._pulled(remote())

    async def _here(self, record: Record) -> Image | None:
        """What a record means, with its root file system; None when too little of it is here."""
        try:
            image = contents_of(record.manifest, self.blobs).image
        except (ImageFault, NoSuchImage):
            return None
        await self.lease.add([rootfs_key(image.chain_id)])
        if not is_sound(squashfs_path(image.chain_id, self.home)):
            await self.lease.add(blob_key(layer.place) for layer in image.layers)
            if not is_whole(image, self.blobs):
                return None
            self.on_pull(resolved_event(self.name, image))
            return image if await self._is_built(image) else None
        self.on_pull(resolved_event(self.name, image))
        return image

    async def _pulled(self, remote: Remote) -> Image:
        resolved = await remote.resolve()
        image, layers = resolved.image, resolved.layers
        stored = sum({layer.digest: layer.size for layer in layers}.values())
        if stored > self.limits.total_bytes:  # before any of it takes up the disk
            raise ImageFault(f"its layers have {stored} bytes; {self.limits.total_bytes} are allowed")
        manifest = resolved.documents[resolved.manifest.digest]
        config = parse_manifest(manifest, resolved.manifest.media_type)[0]
        await self.lease.add([rootfs_key(image.chain_id), blob_key(resolved.manifest.digest), blob_key(config.digest)])
        await self.lease.add(blob_key(layer.digest) for layer in layers)
        self.blobs.add_document(manifest)
        self.blobs.add_document(resolved.documents[config.digest])
        await trio.to_thread.run_sync(self.blobs.trim_parts)
        missing = missing_layers(layers, self.blobs)
        self.on_pull(resolved_event(self.name, image, sum(layers[index].size for index in missing.values())))
        if not await self._is_brought_and_built(image, layers, missing, remote):
            missing = missing_layers(layers, self.blobs)
            await download_layers(layers, missing, remote.fetch, self.blobs, self.on_pull)
            await self._build(image)
        Records(self.home).publish(self.reference, resolved.manifest)
        return image

    async def _is_brought_and_built(
        self, image: Image, layers: Sequence[Descriptor], missing: Mapping[str, int], remote: Remote
    ) -> bool:
        """Download the layers that are missing, and take each into the root file system as it comes. As `_is_built`.

        Raises the first failure, bare, when the other side has been cancelled.
        """
        arrivals = Arrivals.of(missing)
        failures: list[Exception] = []
        is_built = False

        async def download() -> None:
            try:
                await download_layers(layers, missing, remote.fetch, self.blobs, self.on_pull, arrivals.note)
            except Exception as error:
                failures.append(error)
                nursery.cancel_scope.cancel(reason="a layer does not come")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(download)
            try:
                is_built = await self._is_built(image, arrivals)
            except Exception as error:
                failures.append(error)
                nursery.cancel_scope.cancel(reason="the root file system cannot be built")
        if failures:
            raise failures[0]
        return is_built

    async def _is_built(self, image: Image, arrivals: Arrivals = NOTHING) -> bool:
        """Build the root file system of `image`; False when that failed over damaged layers, which are gone now.

        Raises ImageFault when its layers are what they should be, and cannot be built all the same.
        """
        failure = None
        try:
            await self._build(image, arrivals)
        except ImageFault as fault:
            failure = fault
        await arrivals.wait_all()
        if failure is not None and not await self._drop_damaged(image):
            raise failure
        return failure is None

    async def _build(self, image: Image, arrivals: Arrivals = NOTHING) -> None:
        with closing(CachedStore(image, self.blobs, arrivals)) as store:
            await ensure_built(image, store, self.home, on_pull=self.on_pull, limits=self.limits)

    async def _drop_damaged(self, image: Image) -> bool:
        """Remove the layers that are not what they should be; whether there were any. Reads all of them."""
        found = False
        for layer in image.layers:
            assert layer.size is not None
            if not await trio.to_thread.run_sync(self.blobs.is_intact, layer.place, layer.size, Meter().add):
                self.blobs.discard(layer.place)
                found = True
        return found
