"""What commands tell on a terminal while an image is made ready."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trio_sandbox.cli.pull_progress import PHASES, line
from trio_sandbox.pull_event import EVENT_TYPES, PullEvent


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (PullEvent("resolving", "local/base"), "image local/base: resolving …"),
        (PullEvent("stitch_merging_trees", "a\x1b[2J"), "image a\ufffd[2J: stitch merging trees …"),
    ],
)
def test_events_in_words(event: PullEvent, told: str) -> None:
    assert line(event) == told


def test_every_event_of_a_layer_has_a_word() -> None:
    assert set(PHASES) == {event for event in EVENT_TYPES if event.startswith("layer_")}


SHOW = """
from trio_sandbox.cli.pull_progress import shown_progress
from trio_sandbox.pull_event import PullEvent
with shown_progress(is_shown=True) as show:
    show(PullEvent("resolving", reference="demo"))
    show(PullEvent("layer_download_progress", layer_index=1, digest="d", downloaded_bytes=1 << 20, total_bytes=3 << 20))
    show(PullEvent("layer_download_complete", layer_index=1, digest="d", downloaded_bytes=3 << 20))
    show(PullEvent("layer_download_verifying", layer_index=1, digest="d"))
    show(PullEvent("stitch_merging_trees", layer_count=2))
    show(PullEvent("layer_materialize_started", layer_index=0, diff_id="d"))
    show(PullEvent("complete", reference="demo", layer_count=2))
"""


def test_a_bar_for_each_layer() -> None:
    environment = {
        "TERM": "xterm",
        "FORCE_COLOR": "1",
        "COLUMNS": "100",
        "LINES": "30",
        "PYTHONPATH": ":".join(sys.path),
    }
    shown = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, env=environment, check=True, text=True)
    assert shown.stdout == ""
    for word in ("image demo: resolving", "layer 2", "layer 1", "verifying", "unpacking", "3.0/3.0 MiB"):
        assert word in shown.stderr, shown.stderr
    assert shown.stderr.endswith("\x1b[1A\x1b[2K")  # the bars are gone again


def test_an_image_that_is_here_imports_no_bars() -> None:
    code = SHOW.split('    show(PullEvent("layer_download_progress')[0] + "import sys; sys.exit('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "image demo: resolving …")
