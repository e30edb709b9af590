"""Copies between the host's files and the guest's. anyio only; the host's disk is worked on in worker threads.

The guest is hostile: `host_tree` says how a tree of its making is kept inside its folder.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

from trio_sandbox.client.fs_call import FsCall
from trio_sandbox.client.fs_streams import FsWriteSink
from trio_sandbox.client.fs_types import FsCopied
from trio_sandbox.client.host_file import FileReader, FileWriter
from trio_sandbox.client.host_tree import LOT, Budget, TreeReader, TreeWriter

OnProgress = Callable[[int], None]
"""Told of how many bytes of files have come so far, in the task that copies."""

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


def ignore(size: int) -> None:
    """Nobody wants to know."""


class _Threads:
    """Runs the blocking calls on one resource in worker threads, never two at once.

    anyio's cancellation waits for a thread; one that asyncio delivers by itself does not, so there is a lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def run(self, function: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Call `function` in a thread. Cancellation: it runs to its end first."""

        def locked() -> T:
            with self._lock:
                return function(*arguments)

        return await anyio.to_thread.run_sync(locked)


@asynccontextmanager
async def _threads(close: Callable[[], None]) -> AsyncIterator[_Threads]:
    """Threads for a resource that is closed in one at the end of the block, whatever ends it."""
    threads = _Threads()
    try:
        yield threads
    finally:
        with anyio.CancelScope(shield=True):
            await threads.run(close)  # noqa: ASYNC102  # a thread has no deadline


async def send_file(
    source: Path, open_sink: Callable[[int], FsWriteSink], on_progress: OnProgress = ignore
) -> FsCopied:
    """Write a file of the host to the sink that `open_sink` gives for its permission bits. Raises OSError."""
    reader, size = FileReader(source), 0
    async with _threads(reader.close) as threads, open_sink(reader.mode) as sink:
        while piece := await threads.run(reader.read, LOT):
            await sink.write(piece)
            size += len(piece)
            on_progress(size)
    return FsCopied(entries=1, size=size, skipped=0)


async def send_tree(source: Path, call: FsCall, on_progress: OnProgress = ignore) -> FsCopied:
    """Give `unpack` a folder of the host. Raises OSError."""
    reader = TreeReader(source)
    async with _threads(reader.close) as threads:
        while lot := await threads.run(reader.lot):
            await call.send(lot)
            on_progress(reader.copied.size)
    call.end_input()
    await call.finish()
    return reader.copied


async def receive_file(
    call: FsCall, target: Path, mode: int, budget: Budget, on_progress: OnProgress = ignore
) -> FsCopied:
    """Put what `read` gives into a file of the host, whole or not at all. Raises StorageError, OSError."""
    writer = FileWriter(target, mode)
    async with _threads(writer.close) as threads:
        while lot := await _next_lot(call):
            budget.spend(size=len(lot))
            await threads.run(writer.write, lot)
            on_progress(budget.size)
        await threads.run(writer.finish)
    return FsCopied(entries=1, size=budget.size, skipped=0)


async def receive_tree(
    call: FsCall, target: Path, budget: Budget, on_progress: OnProgress = ignore, *, symlinks: bool
) -> FsCopied:
    """Make what `pack` gives a new folder of the host, whole or not at all. Raises as TreeWriter."""
    writer = TreeWriter(target, budget, symlinks=symlinks)
    async with _threads(writer.close) as threads:
        while lot := await _next_lot(call):
            await threads.run(writer.feed_untrusted, lot)
            on_progress(budget.size)
        return await threads.run(writer.finish_untrusted)


async def _next_lot(call: FsCall) -> bytes:
    """About LOT bytes of what the operation gives, b"" at its end."""
    pieces, size = [], 0
    while size < LOT and (piece := await call.receive()) is not None:
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)
