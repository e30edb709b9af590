"""What a simulated program sees of its guest: the one argument of the functions that tests write."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import attrs
import trio

from trio_sandbox.testing.pipes import Pipe
from trio_sandbox.testing.terminal import Terminal

if TYPE_CHECKING:
    from trio_sandbox.testing.events import EventHub, Listener
    from trio_sandbox.testing.files import MemoryFiles
    from trio_sandbox.testing.processes import Process

READ_SIZE = 65_536

Main = Callable[["Program"], Awaitable[int | None]]
"""A program: an async function of its Program that returns the exit code, None for 0."""


@attrs.define(eq=False)
class ProgramInput:
    """Standard input: an async iterator of pieces of bytes, as they come."""

    _process: Process
    _pipe: Pipe
    _terminal: Terminal | None = None
    _close: Callable[[], None] = lambda: None
    _rest: bytes = b""

    async def receive(self, most: int = READ_SIZE) -> bytes:
        """The next bytes, at most so many; b"" at the end. On a terminal, of one line."""
        await self._process.turn()
        if self._rest:
            piece, self._rest = self._rest[:most], self._rest[most:]
            return piece
        piece = await (self._terminal or self._pipe).read(most)
        await self._process.clock.running()
        return piece

    async def receive_all(self) -> bytes:
        """All that is left."""
        return b"".join([piece async for piece in self])

    async def receive_line(self) -> bytes:
        """The next line with its line feed; what is left without one at the end, then b""."""
        line = b""
        while not line.endswith(b"\n") and (piece := await self.receive()):
            head, feed, self._rest = piece.partition(b"\n")
            line += head + feed
        return line

    def close(self) -> None:
        """Take no more: the host hears of it."""
        self._close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not (piece := await self.receive()):
            raise StopAsyncIteration
        return piece


@attrs.define(eq=False)
class ProgramOutput:
    """Standard output or standard error: a pipe of 64 KiB, emptied as far as the host's reader has credit for it."""

    _process: Process
    _pipe: Pipe
    _terminal: Terminal | None = None

    async def send(self, data: bytes | str) -> None:
        """Write, waiting while nobody reads."""
        raw = data.encode() if isinstance(data, str) else bytes(data)
        await self._process.turn()
        await self._pipe.write(self._printed(raw))
        self._process.written += len(raw)

    def put(self, data: bytes) -> None:
        """Write what there is room for, without a wait."""
        self._pipe.put(self._printed(data))
        self._pipe.changed()

    def _printed(self, data: bytes) -> bytes:
        return data if self._terminal is None else self._terminal.printed(data)


@attrs.define(eq=False)
class Program:
    """One running program. It may use anything of Trio, but time is `sleep`'s, which stands still with the machine.

    A signal that ends it is a cancellation, so a program must not shield itself. An exception that it raises is a
    traceback on its standard error and exit code 1.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    uid: int
    gid: int
    rlimits: Mapping[int, tuple[int, int]]
    """Resource numbers with soft and hard limits. They are told and not enforced."""
    stdin: ProgramInput
    stdout: ProgramOutput
    stderr: ProgramOutput
    files: MemoryFiles
    terminal: Terminal | None
    _process: Process
    _events: EventHub

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def tty(self) -> bool:
        """Whether standard input and output are a terminal."""
        return self.terminal is not None

    def path(self, path: str) -> str:
        """A path as it is seen from the working directory."""
        return os.path.join(self.cwd, path)

    async def sleep(self, seconds: float) -> None:
        """Wait so long on the guest's clock."""
        await self._process.clock.sleep(seconds)

    async def sleep_forever(self) -> None:
        await trio.sleep_forever()

    # -- signals

    def ignore(self, *signals: int) -> None:
        """From now on these signals do nothing. SIGKILL cannot be ignored."""
        for number in signals:
            self._process.signals.ignore(number)

    def trap(self, *signals: int) -> None:
        """From now on these signals end nothing: they come from `next_signal`."""
        for number in signals:
            self._process.signals.trap(number)

    async def next_signal(self) -> int:
        """Wait for a trapped signal."""
        return await self._process.signals.wait()

    async def raise_signal(self, number: int) -> None:
        """Send a signal to itself, as `kill -N $$`."""
        self._process.signals.deliver(number)
        await trio.lowlevel.checkpoint()

    # -- others

    def spawn(self, main: Main) -> int:
        """Start a background process that holds the same output; its pid. It outlives the program, but no kill."""
        return self._process.spawn(main, self).pid

    async def emit(self, name: str, payload: Any = None) -> None:
        """Send an event to the host's subscriptions."""
        await self._process.turn()
        self._events.emit(name, payload)

    def listen(self, name: str | None = None, *, newest: bool = False) -> Listener:
        """Listen to the host's events from now on: an async iterator of `(name, payload)`, with a count `dropped`.

        newest: when it does not keep up, those that come are dropped; else the oldest.
        """
        return self._events.listen(name or "", drop_oldest=not newest, owner=self._process)
