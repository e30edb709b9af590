"""How far an image is, on a terminal: a bar for each layer, which are gone at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import click

from trio_sandbox.cli.output import plain

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from trio_sandbox.pull_event import OnPull, PullEvent

CLEAR = "\r\x1b[K"
PHASES = {
    "layer_download_progress": "downloading",
    "layer_download_verifying": "verifying",
    "layer_download_complete": "downloaded",
    "layer_materialize_started": "unpacking",
    "layer_materialize_progress": "unpacking",
    "layer_materialize_writing": "writing",
    "layer_materialize_complete": "ready",
}
"""What a person is told of a layer; every other event is about the image."""


@attrs.define(eq=False)
class Bars:
    """The bars, which are begun when there is the first layer to tell of: an image that is here has none."""

    progress: Progress | None = None
    _tasks: dict[int, TaskID] = attrs.field(factory=dict)

    def show(self, event: PullEvent) -> None:
        if event.layer_index is not None:
            self._show_layer(event.layer_index, event)
        elif self.progress is None:
            click.echo(f"{CLEAR}{line(event)}", err=True, nl=False)

    def _show_layer(self, index: int, event: PullEvent) -> None:
        if self.progress is None:
            click.echo(CLEAR, err=True, nl=False)
            self.progress = begun()
        if index not in self._tasks:
            self._tasks[index] = self.progress.add_task("", total=None, layer=f"layer {index + 1}")
        done = event.downloaded_bytes if event.downloaded_bytes is not None else event.bytes_read
        fields: dict[str, Any] = {"completed": done, "total": event.total_bytes}
        known = {key: value for key, value in fields.items() if value is not None}
        self.progress.update(self._tasks[index], description=PHASES[event.event_type], **known)

    def end(self) -> None:
        if self.progress is None:
            click.echo(CLEAR, err=True, nl=False)
        else:
            self.progress.stop()


def begun() -> Progress:
    """What draws the bars, and takes them away when it is stopped."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.fields[layer]}"),
        TextColumn("{task.description:<11}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    progress.start()
    return progress


@contextmanager
def shown_progress(*, is_shown: bool) -> Iterator[OnPull]:
    """Something to tell of events; is_shown: on a terminal, which is as it was at the end of the block."""
    from trio_sandbox.pull_event import ignore

    if not is_shown:
        yield ignore
        return
    bars = Bars()
    try:
        yield bars.show
    finally:
        bars.end()


def line(event: PullEvent) -> str:
    """An event about the image in words."""
    return f"image {plain(event.reference or '')}: {event.event_type.replace('_', ' ')} …"
