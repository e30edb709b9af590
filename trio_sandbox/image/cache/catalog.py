"""What images the cache holds, and how large they are. Sync, and quick: only their documents are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import attrs

from trio_sandbox.errors import ImageNotFoundError
from trio_sandbox.home import Home
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.cache.contents import Contents, contents_of
from trio_sandbox.image.cache.records import Record, Records
from trio_sandbox.image.faults import ImageFault, NoSuchImage
from trio_sandbox.image.oci import host_architecture, parse_object, read_verified
from trio_sandbox.image.squashfs import squashfs_path
from trio_sandbox.image_info import ImageDetail, ImageInfo, ImageLayer, ImageRunConfig

NS_PER_MS = 1e6


@attrs.frozen
class CachedImage:
    """A reference, and the image that it means."""

    record: Record
    contents: Contents

    @property
    def chain_id(self) -> str:
        return self.contents.image.chain_id


@attrs.frozen
class Catalog:
    """The images of one data folder. An image whose documents are damaged counts as not there."""

    home: Home

    @property
    def blobs(self) -> BlobCache:
        return BlobCache(self.home)

    def all(self) -> list[CachedImage]:
        """By reference."""
        return list(self._all())

    def _all(self) -> Iterator[CachedImage]:
        for record in Records(self.home).all():
            with suppress(ImageFault, NoSuchImage):
                yield CachedImage(record, contents_of(record.manifest, self.blobs))

    def find(self, reference: str, name: str) -> CachedImage:
        """The image of a canonical reference. name: as the user wrote it. Raises ImageNotFoundError."""
        record = Records(self.home).find(reference)
        if record is None:
            raise ImageNotFoundError(name, "it is not in the cache; pull or load it first")
        try:
            return CachedImage(record, contents_of(record.manifest, self.blobs))
        except (ImageFault, NoSuchImage) as error:
            raise ImageNotFoundError(name, f"it is damaged ({error}); pull or load it again") from error

    def info(self, image: CachedImage) -> ImageInfo:
        """A summary."""
        record, contents = image.record, image.contents
        return ImageInfo(
            reference=record.reference,
            manifest_digest=contents.manifest.digest,
            architecture=host_architecture(),
            os="linux",
            layer_count=len(contents.layers),
            size_bytes=sum(contents.blobs.values()),
            disk_bytes=self.disk_bytes(contents.blobs, [image.chain_id]),
            created_at=self._created_at(contents),
            pulled_at=record.pulled_ns / NS_PER_MS,
            last_used_at=max(record.used_ns, record.pulled_ns) / NS_PER_MS,
        )

    def detail(self, image: CachedImage) -> ImageDetail:
        """All that is known."""
        contents = image.contents
        config = attrs.asdict(contents.image.config, recurse=False)
        layers = tuple(
            ImageLayer(position, layer.diff_id, stored.digest, stored.media_type, stored.size)
            for position, (layer, stored) in enumerate(zip(contents.image.layers, contents.layers, strict=True))
        )
        return ImageDetail(
            self.info(image), image.chain_id, ImageRunConfig(digest=contents.config.digest, **config), layers
        )

    def disk_bytes(self, digests: Iterable[str], chain_ids: Iterable[str]) -> int:
        """What is here of some blobs and root file systems."""
        paths = [self.blobs.path(digest) for digest in digests]
        paths += [squashfs_path(chain_id, self.home) for chain_id in chain_ids]
        return sum(map(taken, paths))

    def _created_at(self, contents: Contents) -> float | None:
        try:
            text = parse_object(read_verified(contents.config, self.blobs.read), "the configuration").get("created")
            time = datetime.fromisoformat(text if isinstance(text, str) else "")
        except (ImageFault, ValueError):
            return None
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1e3


def taken(path: Path) -> int:
    """The bytes of disk that a file takes up; 0 when it is not there."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0
