"""The byte stream between host and guest, in memory and bounded as a virtio port is: a peer that does not read makes
the other one wait.
"""

from __future__ import annotations

from typing import Self

import trio

CAPACITY = 65_536
"""Bytes that may be on their way in one direction."""


class _Direction:
    """One way. Closing either end of it ends it for both."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False
        self.left: int | None = None  # bytes that still pass before it breaks off
        self.lot = trio.lowlevel.ParkingLot()

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            while len(self.data) >= CAPACITY and not self.ended:
                await self.lot.park()
            if self.ended:
                raise trio.BrokenResourceError("the other end of the port is closed")
            taken = CAPACITY - len(self.data)
            if self.left is not None:
                taken = min(taken, self.left)
                self.left -= len(rest[:taken])
            self.data += rest[:taken]
            rest = rest[taken:]
            if self.left == 0:
                self.end()
            self.lot.unpark_all()

    async def receive(self, most: int | None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self.data and not self.ended:
            await self.lot.park()
        piece = bytes(self.data[:most])
        del self.data[: len(piece)]
        self.lot.unpark_all()
        return piece

    def end(self) -> None:
        self.ended = True
        self.lot.unpark_all()


class Port(trio.abc.Stream):
    """One end. Not for two senders, or two receivers, at once."""

    def __init__(self, outgoing: _Direction, incoming: _Direction) -> None:
        self._outgoing, self._incoming = outgoing, incoming

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Both ends of a new stream."""
        there, back = _Direction(), _Direction()
        return cls(there, back), cls(back, there)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises BrokenResourceError once an end is closed. Cancellation: a part was sent."""
        await self._outgoing.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """b"" once an end is closed and all has been received."""
        return await self._incoming.receive(max_bytes)

    async def flushed(self) -> None:
        """Wait until the other end has received all that was sent, or is closed."""
        while self._outgoing.data and not self._outgoing.ended:
            await self._outgoing.lot.park()

    def cut(self, after: int) -> None:
        """Break off what comes in once so many more bytes have been sent, at once with 0."""
        self._incoming.left = after
        if not after:
            self._incoming.end()

    def close(self) -> None:
        """Close this end. What was sent can still be received."""
        self._outgoing.end()
        self._incoming.end()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()
