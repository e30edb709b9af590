"""How far a copy is, on a terminal: a bar that is gone at the end. Copies that are quick have none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import click

from trio_sandbox.cli.output import plain, size

QUICK = 0.4
"""Seconds in which a copy is done that needs no bar."""
PERIOD = 0.1
"""Seconds between two looks of it."""
WIDTH = 20
CLEAR = "\r\x1b[K"


@attrs.define(eq=False)
class Bar:
    """One copy. name: of what is copied. total: its bytes, None where nobody knows. show: writes text to the terminal.

    clock: seconds.
    """

    name: str
    total: int | None
    show: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _began: float = attrs.field(init=False)
    _next: float = attrs.field(init=False)
    _is_shown: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._began = self.clock()
        self._next = self._began + QUICK

    def tell(self, done: int) -> None:
        """Show how many bytes there are, and how many come in a second, if it is time to."""
        now = self.clock()
        if now < self._next:
            return
        self._next = now + PERIOD
        self._is_shown = True
        rate = f"{size(done)}, {size(int(done / (now - self._began)))}/s"
        self.show(f"{CLEAR}{self.name}: {self._drawn(done)}{rate}")

    def _drawn(self, done: int) -> str:
        if not self.total:
            return ""
        part = min(done / self.total, 1.0)
        return f"[{'#' * int(part * WIDTH):<{WIDTH}}] {part:4.0%}  "

    def end(self) -> None:
        """Take the bar away."""
        if self._is_shown:
            self.show(CLEAR)


@contextmanager
def shown_progress(name: str, total: int | None, *, is_shown: bool) -> Iterator[Callable[[int], None]]:
    """Something to tell of bytes copied; is_shown: on a terminal, which is as it was at the end of the block."""
    bar = Bar(plain(name), total, lambda text: click.echo(text, err=True, nl=False, color=True)) if is_shown else None
    try:
        yield bar.tell if bar is not None else lambda done: None
    finally:
        if bar is not None:
            bar.end()
