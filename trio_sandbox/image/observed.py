"""Telling how far the layers are on their way into a root file system, by what is read of them. Trio.

Layers are read in a worker thread, and more than once; how far each was read is written down there and looked at here,
now and then. So the merge knows nothing of events.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from trio_sandbox.image.blobs import Blob, ImageStore
from trio_sandbox.image.oci import Image, Layer
from trio_sandbox.image.progress import REPORT_SECONDS
from trio_sandbox.pull_event import OnPull, PullEvent
from trio_sandbox.service import service


@attrs.define(eq=False)
class _Reading:
    """One layer on its way. reached: end of what was read of it, set by the worker thread."""

    index: int
    layer: Layer
    on_pull: OnPull
    total: int = 0
    reached: int = 0
    _told: int = -1
    _is_read: bool = False

    def look(self) -> None:
        """Tell what is new since the last look."""
        reached = self.reached
        if self._is_read or reached == max(self._told, 0):
            return
        if self._told < 0:
            self.on_pull(PullEvent("layer_materialize_started", layer_index=self.index, diff_id=self.layer.diff_id))
        self._told = reached
        index, total = self.index, self.total
        self.on_pull(PullEvent("layer_materialize_progress", layer_index=index, bytes_read=reached, total_bytes=total))
        if reached >= self.total:
            self._is_read = True
            self.on_pull(PullEvent("layer_materialize_writing", layer_index=self.index))

    def end(self) -> None:
        """The root file system is whole, and the layer with it."""
        self.reached = self.total
        self.look()
        self.on_pull(PullEvent("layer_materialize_complete", layer_index=self.index, diff_id=self.layer.diff_id))


@attrs.frozen(eq=False)
class _ObservedBlob(Blob):
    """A blob that writes down how far it was read."""

    readings: Sequence[_Reading]

    def read_at(self, offset: int, amount: int) -> bytes:
        data = super().read_at(offset, amount)
        for reading in self.readings:
            reading.reached = max(reading.reached, offset + len(data))
        return data


@attrs.frozen(eq=False)
class _ObservedStore:
    """An `ImageStore` whose layers are watched."""

    _store: ImageStore
    _readings: Sequence[_Reading]

    def image(self) -> Image:
        return self._store.image()

    def layer(self, layer: Layer) -> Blob:
        blob = self._store.layer(layer)
        # A layer that is there several times is read for all of them.
        readings = [reading for reading in self._readings if reading.layer == layer]
        for reading in readings:
            reading.total = blob.size
        place = (blob.name, blob.descriptor, blob.offset, blob.size)
        return _ObservedBlob(*place, readings, is_verified=blob.is_verified)

    def close(self) -> None:
        self._store.close()


@asynccontextmanager
async def observed(image: Image, store: ImageStore, on_pull: OnPull) -> AsyncIterator[ImageStore]:
    """The same store, to read the layers of `image` from within the block: how far they are is told, and when the block
    ends well, that each of them is in.
    """
    readings = [_Reading(index, layer, on_pull) for index, layer in enumerate(image.layers)]
    async with service(_watch, readings, name="progress"):
        yield _ObservedStore(store, readings)
    for reading in readings:
        reading.end()


async def _watch(readings: Sequence[_Reading], *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    while True:
        await trio.sleep(REPORT_SECONDS)
        for reading in readings:
            reading.look()
