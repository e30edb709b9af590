"""Pipes between the simulated agent and the simulated programs: bounded, with an end that is awaited and one that is
called.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

PIPE_CAPACITY = 65_536
"""Bytes, as of a pipe of Linux."""


@attrs.define(eq=False)
class Pipe:
    """changed: called after a program has put something in, or taken something out."""

    changed: Callable[[], None] = lambda: None
    capacity: int = PIPE_CAPACITY
    data: bytearray = attrs.Factory(bytearray)
    ended: bool = False
    """Nothing more is put in."""
    unread: bool = False
    """Nobody takes anything out any more; what is put in is thrown away."""
    _lot: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    # -- the agent's end

    def put(self, data: bytes | memoryview) -> int:
        """Put in what there is room for; how much that was."""
        if self.unread:
            return len(data)
        piece = data[: self.capacity - len(self.data)]
        self.data += piece
        self._lot.unpark_all()
        return len(piece)

    def take(self, most: int) -> bytes:
        """Take out at most so much."""
        piece = bytes(self.data[:most])
        del self.data[: len(piece)]
        if piece:
            self._lot.unpark_all()
        return piece

    def end(self) -> None:
        """Nothing follows."""
        self.ended = True
        self._lot.unpark_all()

    def discard(self) -> None:
        """From now on everything is thrown away."""
        self.unread = True
        self.data.clear()
        self._lot.unpark_all()

    # -- the program's end

    async def write(self, data: bytes) -> None:
        """Put all of it in, waiting for room."""
        rest = memoryview(data)
        while rest:
            taken = self.put(rest)
            rest = rest[taken:]
            if taken:
                self.changed()
            else:
                await self._lot.park()

    async def read(self, most: int) -> bytes:
        """Wait for something and take at most `most` bytes of it out; b"" at the end."""
        while not self.data and not self.ended:
            await self._lot.park()
        piece = self.take(most)
        self.changed()
        return piece
