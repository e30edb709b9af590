"""The caller's terminal: raw mode, reading and writing it without threads, its size. anyio only.

The descriptors of a terminal are usually shared with the shell that started us, and so is whether they block. They are
therefore opened anew: ours do not block, and nobody else's are touched.
"""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import anyio
import attrs

from trio_sandbox.errors import TerminalError

CHUNK = 65_536
"""Bytes that one read takes at most."""


@attrs.frozen
class Terminal:
    """Where somebody types and reads: two descriptors of a terminal, which stay the caller's."""

    input: int
    output: int

    @classmethod
    def of_this_process(cls) -> Terminal:
        """Standard input and output. Raises TerminalError when there are none."""
        try:
            sys.stdout.flush()  # what was printed before comes first
            return cls(sys.stdin.fileno(), sys.stdout.fileno())
        except (AttributeError, OSError, ValueError) as error:  # None, closed, or replaced by something in memory
            raise TerminalError("standard input or output is closed or no file") from error

    @contextmanager
    def opened(self) -> Iterator[Screen]:
        """Use the terminal for the length of a block. Raises TerminalError when it is none."""
        for name, descriptor in (("input", self.input), ("output", self.output)):
            if not os.isatty(descriptor):
                raise TerminalError(f"its {name} (descriptor {descriptor}) is no terminal")
        with _not_blocking(self.input, os.O_RDONLY) as reading, _not_blocking(self.output, os.O_WRONLY) as writing:
            yield Screen(reading, writing)


@contextmanager
def _not_blocking(descriptor: int, flags: int) -> Iterator[int]:
    """A descriptor of the same terminal, our own, that does not block."""
    was_blocking = None
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # after `su` it is another user's: there is only the shared one, to be given back as it was
        own, was_blocking = os.dup(descriptor), os.get_blocking(descriptor)
        os.set_blocking(own, False)
    try:
        yield own
    finally:
        if was_blocking is not None:
            os.set_blocking(own, was_blocking)
        os.close(own)


class Screen:
    """A terminal in use. Made by `Terminal.opened`."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing

    @contextmanager
    def raw(self) -> Iterator[None]:
        """Every byte typed is passed on at once, ctrl-c too, and every byte written is shown as it is. In any case the
        terminal is as it was before when the block has ended.
        """
        # Always TCSANOW: the other ways wait for the output of a terminal that may have been stopped.
        before = termios.tcgetattr(self._reading)
        try:
            self.set_raw()
            yield
        finally:
            with suppress(termios.error):  # it has hung up
                termios.tcsetattr(self._reading, termios.TCSANOW, before)

    def set_raw(self) -> None:
        """Raw mode again, where a shell has changed it while we were stopped."""
        with suppress(termios.error):
            tty.setraw(self._reading, termios.TCSANOW)

    def size(self) -> tuple[int, int] | None:
        """Rows and columns; None for a terminal that has no size."""
        try:
            rows, cols = termios.tcgetwinsize(self._writing)
        except termios.error:
            return None
        return (rows, cols) if rows and cols else None

    async def read(self) -> bytes:
        """Wait for what is typed; b"" when the terminal has hung up. Cancellation: no effect."""
        while True:
            await anyio.wait_readable(self._reading)
            try:
                return os.read(self._reading, CHUNK)
            except BlockingIOError:  # somebody else was quicker
                continue
            except OSError:
                return b""

    async def write(self, data: bytes) -> None:
        """Write all of it, waiting while the terminal is slow or stopped. Raises OSError when it has hung up.

        Cancellation: an unknown part of `data` was written.
        """
        await anyio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._writing, rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._writing)
