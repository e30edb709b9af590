"""Bringing the layers of an image into the cache: several at once, each once, whoever asks for it. Trio.

Runs in: the task of whoever pulls, with a task for each layer and one that tells how far they are. Owns: the lock of
each blob while it is downloaded, and its part, which is kept when the download ends early. Cancellation: what has come
is kept for the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

from trio_sandbox.exclusive import exclusively
from trio_sandbox.files import storage_errors
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.cache.keys import download_key
from trio_sandbox.image.oci import Descriptor
from trio_sandbox.image.progress import REPORT_SECONDS
from trio_sandbox.pull_event import OnPull, PullEvent
from trio_sandbox.service import service

PARALLEL = 4
"""Layers of one image that are downloaded at once."""


class Fetch(Protocol):
    """Downloads a blob into a file, from where an earlier download into it stopped, and verifies it."""

    async def __call__(self, descriptor: Descriptor, part: Path, /) -> None: ...


@attrs.define(eq=False)
class _Download:
    """One blob on its way. index: of the first layer that it is. told: bytes of the last report."""

    index: int
    layer: Descriptor
    on_pull: OnPull
    told: int = 0
    is_complete: bool = False

    def look(self, downloaded: int) -> None:
        """Tell what is new: how many bytes are here, and that it is all of them, which are verified next."""
        if self.is_complete:
            return
        size = self.layer.size
        downloaded = min(downloaded, size)
        if downloaded > self.told:  # less where what had come was of no use
            self.told = downloaded
            self._tell("layer_download_progress", downloaded_bytes=downloaded, total_bytes=size)
        if downloaded == size:
            self.is_complete = True
            self._tell("layer_download_complete", downloaded_bytes=size)
            self._tell("layer_download_verifying")

    def _tell(self, event_type: str, **fields: Any) -> None:
        self.on_pull(PullEvent(event_type, layer_index=self.index, digest=self.layer.digest, **fields))


def missing_layers(layers: Sequence[Descriptor], blobs: BlobCache) -> dict[str, int]:
    """By digest, the indexes of the layers that are not here. One that is there several times is downloaded once."""
    found: dict[str, int] = {}
    for index, layer in enumerate(layers):
        if not blobs.holds(layer.digest, layer.size):
            found.setdefault(layer.digest, index)
    return found


async def download_layers(
    layers: Sequence[Descriptor],
    missing: Mapping[str, int],
    fetch: Fetch,
    blobs: BlobCache,
    on_pull: OnPull,
    on_arrival: Callable[[str], None] = lambda digest: None,
) -> None:
    """Download what is missing of `layers`. What somebody else downloads already is waited for, and told of alike.

    missing: what `missing_layers` found. on_arrival: called with the digest of each of them, when it is here; also when
    somebody else has brought it meanwhile.

    Raises the first failure, bare, when the others have been cancelled.
    """
    downloads = [_Download(index, layers[index], on_pull) for index in missing.values()]
    if not downloads:
        return
    limiter = trio.CapacityLimiter(PARALLEL)
    failures: list[Exception] = []
    async with service(_report, downloads, blobs, name="progress"), trio.open_nursery() as nursery:

        async def one(download: _Download) -> None:
            try:
                await _bring(download, fetch, blobs, limiter)
            except Exception as error:
                failures.append(error)
                nursery.cancel_scope.cancel(reason="another layer failed")
            else:
                download.look(download.layer.size)
                on_arrival(download.layer.digest)

        for download in downloads:
            nursery.start_soon(one, download)
    if failures:
        raise failures[0]


async def _bring(download: _Download, fetch: Fetch, blobs: BlobCache, limiter: trio.CapacityLimiter) -> None:
    layer = download.layer
    async with exclusively(blobs.home, download_key(layer.digest)):
        if not blobs.holds(layer.digest, layer.size):
            part = blobs.part(layer.digest)
            async with limiter:
                with storage_errors(part.parent):
                    await fetch(layer, part)
            # Nothing is harmed by a sync that goes on after a cancellation, and some disks take their time.
            await trio.to_thread.run_sync(blobs.sync_part, layer.digest, abandon_on_cancel=True)
            blobs.adopt(layer.digest, layer.size)


async def _report(downloads: Sequence[_Download], blobs: BlobCache, *, task_status: trio.TaskStatus[None]) -> None:
    """Look at the parts now and then: they tell how far a download is, whichever process it belongs to."""
    task_status.started()
    while True:
        await trio.sleep(REPORT_SECONDS)
        for download in downloads:
            try:
                download.look(blobs.part(download.layer.digest).stat().st_size)
            except FileNotFoundError:  # not begun, or over
                continue
