"""A terminal to attach to, and the person in front of it: a pseudo-terminal of this process, without a child."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import attrs

from trio_sandbox.client.terminal import Terminal


@attrs.define(eq=False)
class Person:
    """Types at the master's side and reads there. `seen` is all that was shown."""

    master: int
    slave: int
    seen: bytearray = attrs.Factory(bytearray)
    gone: bool = False

    @property
    def terminal(self) -> Terminal:
        return Terminal(self.slave, self.slave)

    @property
    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    def is_raw(self) -> bool:
        return not self.modes[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def type(self, data: bytes) -> None:
        assert os.write(self.master, data) == len(data)

    async def wait_to_see(self, words: bytes) -> None:
        while words not in self.seen:
            await anyio.wait_readable(self.master)
            self.seen += os.read(self.master, 65_536)

    def look(self) -> bytes:
        """All that has been shown by now."""
        os.set_blocking(self.master, False)
        try:
            while data := os.read(self.master, 65_536):
                self.seen += data
        except BlockingIOError:
            pass
        finally:
            os.set_blocking(self.master, True)
        return bytes(self.seen)

    def resize(self, rows: int, cols: int) -> None:
        termios.tcsetwinsize(self.slave, (rows, cols))

    def hang_up(self) -> None:
        self.gone = True
        os.close(self.master)

    def close(self) -> None:
        if not self.gone:
            os.close(self.master)
        os.close(self.slave)


@contextmanager
def person(rows: int = 30, cols: int = 100) -> Iterator[Person]:
    """A person at a terminal of that size."""
    found = Person(*os.openpty())
    try:
        found.resize(rows, cols)
        yield found
    finally:
        found.close()
