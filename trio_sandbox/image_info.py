"""What is known of the images in the cache, as `Image.list`, `get`, `inspect` and `prune` tell it. Plain values.

Sizes in bytes; times in milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class ImageInfo:
    """One image of the cache."""

    reference: str
    """Whole: with registry, repository, and tag or digest."""
    manifest_digest: str
    architecture: str
    os: str
    layer_count: int
    size_bytes: int
    """As a registry sends it: documents and compressed layers, each counted once."""
    disk_bytes: int
    """That it takes up on this machine's disk: what is here of the above, and the root file system made of it.
    Images share layers, so this is not what a removal frees; see `ImageUsage`.
    """
    created_at: float | None
    """As the image says."""
    pulled_at: float
    last_used_at: float

    def to_plain(self) -> dict[str, Any]:
        return attrs.asdict(self)


@attrs.frozen
class ImageLayer:
    """One layer, lowest first."""

    position: int
    diff_id: str
    """Digest of the tar archive that it is."""
    blob_digest: str
    """Digest of what is stored: the same, compressed."""
    media_type: str
    size_bytes: int
    """Of what is stored."""


@attrs.frozen
class ImageRunConfig:
    """How the image wants its programs run. Empty where it says nothing."""

    digest: str
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    stop_signal: str = ""


@attrs.frozen
class ImageDetail:
    """All that is known of one image."""

    info: ImageInfo
    chain_id: str
    """Of its layers: images of one chain id share their root file system."""
    config: ImageRunConfig
    layers: tuple[ImageLayer, ...]


@attrs.frozen
class ImageUsage:
    """What all images take up together; what they share is counted once."""

    image_count: int
    size_bytes: int
    """Documents and compressed layers."""
    disk_bytes: int
    """These as they are on disk, with all root file systems and interrupted downloads."""
    reclaimable_bytes: int
    """Of that, what no image and no sandbox needs: what `prune` frees."""


@attrs.frozen
class ImagePruneReport:
    """What `prune` removed."""

    images_removed: tuple[str, ...] = ()
    blobs_removed: int = 0
    rootfs_removed: int = 0
    bytes_reclaimed: int = 0
