"""Files of any size and folders of any length, a piece at a time. anyio only.

These own an operation in the guest and no task: whoever awaits moves it along, and a reader that stops stops it. Use
them in `async with`: leaving the block ends the operation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio

from trio_sandbox.client.fs_call import FsCall
from trio_sandbox.client.fs_records import EntryStream
from trio_sandbox.client.fs_types import FsEntry
from trio_sandbox.errors import RemoteProtocolError


class FsReadStream:
    """The bytes of a file, an async iterator of pieces of at most 256 KiB. Not for two readers at once."""

    def __init__(self, call: FsCall) -> None:
        self._call = call
        self._first: bytes | None = None

    async def open(self) -> None:
        """Wait for the first piece, so that a file that cannot be read is known at once."""
        self._first = await self._call.receive()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next piece. Raises FilesystemError when the guest cannot read on. Cancellation: nothing is lost."""
        piece, self._first = self._first, None
        if piece is None:
            piece = await self._call.receive()
        else:
            await anyio.lowlevel.checkpoint()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def collect(self) -> bytes:
        """All that is left. Raises as the iteration does. Cancellation: what was read so far is lost."""
        return b"".join([piece async for piece in self])

    async def aclose(self) -> None:
        """End the reading. Harmless when it has ended."""
        await self._call.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class FsWriteSink:
    """A file that is being written. What was written counts when `close` has returned, or the block has ended well.

    A block that ends by an error or a cancellation, and `abort`, give the file up: an atomic write then leaves the
    target as it was; one in place leaves what had arrived. Not for two writers at once.
    """

    def __init__(self, call: FsCall) -> None:
        self._call = call
        self._sent = 0
        self._whole = True
        self._closed = False

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send a piece of any size, waiting while the guest is slower. Raises FilesystemError as the guest says (a full
        disk, say), ClosedResourceError after the end.

        Cancellation: an unknown part was sent, so the file can only be given up: `close` will refuse.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        piece = bytes(memoryview(data))  # bytes(5) would be five zeros
        self._whole, whole = False, self._whole
        await self._call.send(piece)
        self._whole = whole
        self._sent += len(piece)

    async def close(self) -> None:
        """End the file and wait until the guest has put it in place. Harmless when it was closed or given up before.

        Raises FilesystemError, and BrokenResourceError when a `write` was interrupted: the file is given up then.
        Cancellation: the file is given up, or is in place already.
        """
        if self._closed:
            await anyio.lowlevel.checkpoint()
            return
        self._closed = True
        async with self._call:
            if not self._whole:
                raise anyio.BrokenResourceError("a write was interrupted, so the file was given up")
            self._call.end_input()
            check_written_untrusted((await self._call.finish()).count, self._sent)

    async def abort(self) -> None:
        """Give the file up. Harmless after `close`."""
        self._closed = True
        await self._call.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._closed = True
            await self._call.aclose()
            return
        await self.close()  # noqa: ASYNC102  # nothing has failed: this may be cancelled as the block itself


def check_written_untrusted(count: int, sent: int) -> None:
    """The guest must have written what it was sent. Raises RemoteProtocolError."""
    if count != sent:
        raise RemoteProtocolError(f"the guest wrote {count} bytes of {sent}")


class FsEntryStream:
    """The entries of a folder in the folder's own order, an async iterator. Not for two readers at once."""

    def __init__(self, path: bytes, start: Callable[[], FsCall]) -> None:
        self._start = start
        self._call: FsCall | None = None
        self._entries = EntryStream(path)
        self._ready: deque[FsEntry] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FsEntry:
        """The next entry. Raises FilesystemError. Cancellation: nothing is lost."""
        while not self._ready:
            if self._call is None:
                self._call = self._start()
            chunk = await self._call.receive()
            if chunk is None:
                self._entries.finish_untrusted()
                raise StopAsyncIteration
            self._ready.extend(self._entries.feed_untrusted(chunk))
        return self._ready.popleft()

    async def aclose(self) -> None:
        """End the reading. Harmless when it has ended."""
        if self._call is None:
            await anyio.lowlevel.checkpoint()
        else:
            await self._call.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
