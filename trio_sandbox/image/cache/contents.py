"""What an image in the cache is made of, by its documents. Sync."""

from __future__ import annotations

import attrs

from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.oci import Descriptor, Image, parse_manifest, read_verified, resolve


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
