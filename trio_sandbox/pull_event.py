"""What happens to an image on its way to a sandbox, as the events that `PullSession.progress` tells. Plain values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

EVENT_TYPES = (
    "resolving",
    "resolved",
    "layer_download_progress",
    "layer_download_complete",
    "layer_download_verifying",
    "layer_materialize_started",
    "layer_materialize_progress",
    "layer_materialize_writing",
    "layer_materialize_complete",
    "stitch_merging_trees",
    "stitch_writing_fsmeta",
    "stitch_writing_vmdk",
    "stitch_complete",
    "complete",
)
"""All that there are. `resolving` is the first and `complete` the last. An image that is here already, and whose root
file system is made, has `resolved` between them; else come downloads, each layer for itself, and then the layers on
their way into the root file system. Two of `stitch_` are never told: nothing of that kind is made here.
"""


@attrs.frozen
class PullEvent:
    """One event. Fields that do not apply to its `event_type` are None; sizes are in bytes."""

    event_type: str
    reference: str | None = None
    manifest_digest: str | None = None
    layer_count: int | None = None
    total_download_bytes: int | None = None
    layer_index: int | None = None
    digest: str | None = None
    diff_id: str | None = None
    downloaded_bytes: int | None = None
    total_bytes: int | None = None
    bytes_read: int | None = None

    @property
    def is_progress(self) -> bool:
        """Whether it only tells how far something is, and the next one tells more."""
        return self.event_type in ("layer_download_progress", "layer_materialize_progress")

    def to_plain(self) -> dict[str, Any]:
        """The fields that apply."""
        return attrs.asdict(self, filter=lambda _, value: value is not None)


OnPull = Callable[[PullEvent], None]


def ignore(event: PullEvent) -> None:
    """For those who do not want to know."""
