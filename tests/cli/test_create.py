"""What `create` tells while the image is made ready."""

from __future__ import annotations

import pytest

from trio_sandbox.cli.create import progress_line
from trio_sandbox.pull_event import PullEvent


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (PullEvent("resolving", "local/base"), "image local/base: resolving …"),
        (
            PullEvent("layer_download_progress", "a/b", layer_index=0, downloaded_bytes=2048, total_bytes=4096),
            "image a/b: layer download progress 1 2.0 KiB of 4.0 KiB …",
        ),
        (PullEvent("stitch_merging_trees", "a\x1b[2J"), "image a\ufffd[2J: stitch merging trees …"),
    ],
)
def test_events_in_words(event: PullEvent, line: str) -> None:
    assert progress_line(event) == line
