"""An image in the cache: what its documents say, and its layers, opened. Sync."""

from __future__ import annotations

import os

import attrs

from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.cache.arrivals import NOTHING, Arrivals
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.oci import Descriptor, Image, Layer, parse_manifest, read_verified, resolve


@attrs.frozen
class Contents:
    """What a manifest in the cache names. Its documents are here, and verified; its layers need not be here."""

    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    image: Image

    @property
    def blobs(self) -> dict[str, int]:
        """Digests and sizes of all that the image is made of; a layer that is there twice counts once."""
        return {found.digest: found.size for found in (self.manifest, self.config, *self.layers)}


def contents_of(manifest: Descriptor, blobs: BlobCache) -> Contents:
    """Read an image's documents. Raises ImageFault, or NoSuchImage, when one is missing, damaged or of no use here."""
    config, layers = parse_manifest(read_verified(manifest, blobs.read), manifest.media_type)
    return Contents(manifest, config, layers, resolve(manifest, blobs.read))


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
        return blob

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()


def is_whole(image: Image, blobs: BlobCache) -> bool:
    """Whether all of the image's layers are here, as far as their sizes tell."""
    return all(layer.size is not None and blobs.holds(layer.place, layer.size) for layer in image.layers)
