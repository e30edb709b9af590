"""The table of `trio-sandbox top`: measured, sorted, drawn. Imports Trio."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from trio_sandbox.cli.listing import image_text
from trio_sandbox.cli.output import STATUS_STYLES, coloured, plain, show_json, show_table
from trio_sandbox.cli.usage import COLUMNS, cells
from trio_sandbox.client.handle import SandboxHandle
from trio_sandbox.client.metrics import SandboxMetrics
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.errors import SandboxError

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADINGS = ("NAME", "IMAGE", "STATUS", *(heading for heading, _ in COLUMNS))
PATIENCE = 3.0
"""Seconds that one sandbox may take to tell what it uses; its line has no figures then."""
AT_ONCE = 16
"""Sandboxes that are asked at the same time."""
QUIT = b"qQ\x03\x04"
ENDED = ("stopped", "crashed")


@attrs.frozen
class Line:
    """One sandbox. used: None where it cannot be told."""

    name: str
    image: str
    status: str
    used: SandboxMetrics | None

    @property
    def texts(self) -> tuple[str, ...]:
        """One text below each heading."""
        figures = cells(self.used) if self.used is not None else ("-",) * len(COLUMNS)
        return (self.name, self.image, self.status, *figures)

    @property
    def order(self) -> tuple[float, str]:
        """The busiest first."""
        return (-self.used.cpu_percent if self.used is not None else 1.0, self.name)


async def measured(everything: bool) -> list[Line]:
    """What each sandbox uses now. Cancellation: no effect."""
    lines: list[Line] = []
    limit = trio.CapacityLimiter(AT_ONCE)

    async def measure(handle: SandboxHandle) -> None:
        used = None
        async with limit:
            with trio.move_on_after(PATIENCE):
                try:
                    used = await handle.metrics()
                except SandboxError:  # it has ended meanwhile, or nobody but its owner reaches it
                    pass
        lines.append(Line(handle.name, image_text(handle.config_json), handle.status, used))

    async with trio.open_nursery() as nursery:
        for handle in await Sandbox.list():
            if handle.status not in ENDED:
                nursery.start_soon(measure, handle)
            elif everything:
                lines.append(Line(handle.name, image_text(handle.config_json), handle.status, None))
    return sorted(lines, key=lambda line: line.order)


async def once(everything: bool, as_json: bool) -> None:
    """Print what they use now."""
    lines = await measured(everything)
    if as_json:
        show_json([attrs.asdict(line) for line in lines])
    else:
        show_table(HEADINGS, [line.texts for line in lines], {"STATUS": STATUS_STYLES})


async def live(everything: bool, interval: float) -> None:
    """Draw what they use until q is typed. Cancellation: the terminal is as it was before."""
    from rich.console import Console
    from rich.live import Live

    console = Console(no_color=not coloured())
    with _keys() as keyboard, Live(console=console, screen=True, auto_refresh=False) as screen:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(_until_quit, keyboard, nursery.cancel_scope))
            while True:
                began = trio.current_time()
                screen.update(drawn(await measured(everything)), refresh=True)
                await trio.sleep_until(began + interval)


async def _until_quit(keyboard: int, scope: trio.CancelScope) -> None:
    while True:
        await trio.lowlevel.wait_readable(keyboard)
        try:
            typed = os.read(keyboard, 64)
        except OSError:  # the terminal has gone
            typed = b""
        if not typed or set(typed) & set(QUIT):
            scope.cancel(reason="q was typed")
            return


@contextmanager
def _keys() -> Iterator[int]:
    """Standard input, each key as it is typed and not shown; Ctrl-C stays a signal."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard, termios.TCSANOW)
        yield keyboard
    finally:
        with suppress(termios.error):  # it has gone
            termios.tcsetattr(keyboard, termios.TCSANOW, before)


def drawn(lines: Sequence[Line]) -> RenderableType:
    """The table for the whole screen."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    running = sum(line.used is not None for line in lines)
    title = Text(f"{running} of {len(lines)} sandboxes run, q ends", style="dim", no_wrap=True, overflow="ellipsis")
    table = Table(box=None, pad_edge=False, expand=False)
    for index, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if index < 3 else "right", no_wrap=True, overflow="ellipsis")
    for line in lines:
        name, image, status, *figures = map(plain, line.texts)
        table.add_row(name, image, Text(status, style=STATUS_STYLES.get(status, "")), *figures)
    return Group(title, table)
