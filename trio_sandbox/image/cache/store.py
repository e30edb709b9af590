"""The layers of an image in the cache, opened, or waited for. In worker threads of Trio's."""

from __future__ import annotations

import os

import attrs

from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.cache.arrivals import NOTHING, Arrivals
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.oci import Image, Layer


@attrs.define(eq=False)
class CachedStore:
    """One image and its blobs, as an `ImageStore`. Owns the descriptor of every blob that it gave out."""

    _image: Image
    _blobs: BlobCache
    _arrivals: Arrivals = NOTHING
    _open: list[int] = attrs.field(factory=list)

    def image(self) -> Image:
        return self._image

    def layer(self, layer: Layer) -> Blob:
        """Waits for a blob that is on its way. Raises ImageFault when it is not there, or of another size."""
        assert layer.size is not None
        self._arrivals.wait_in_thread(layer.place)
        blob = self._blobs.open(layer.place, layer.size)
        self._open.append(blob.descriptor)
        return attrs.evolve(blob, is_verified=True)

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()


def is_whole(image: Image, blobs: BlobCache) -> bool:
    """Whether all of the image's layers are here, as far as their sizes tell."""
    return all(layer.size is not None and blobs.holds(layer.place, layer.size) for layer in image.layers)
