"""`capture`: the output of a program in bounded memory. anyio only."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import attrs

from trio_sandbox.client.outcome import ExecEventType, ExitStatus
from trio_sandbox.client.program import ExecHandle
from trio_sandbox.errors import ExecTimeoutError, StorageError

DEFAULT_KEPT = 32_768


@attrs.frozen
class Captured:
    """What was kept of a stream. size: bytes that there were; dropped: those between head and tail, not kept.

    Together, head, the dropped bytes and tail are the stream.
    """

    head: bytes
    tail: bytes
    size: int

    @property
    def dropped(self) -> int:
        return self.size - len(self.head) - len(self.tail)

    def text(self) -> str:
        """For people: UTF-8 with replacements, and a line that says what is missing."""
        gap = f"\n[{self.dropped} bytes dropped]\n" if self.dropped else ""
        if not gap:
            return (self.head + self.tail).decode(errors="replace")
        return self.head.decode(errors="replace") + gap + self.tail.decode(errors="replace")


@attrs.frozen
class CapturedOutput:
    """Both streams of a program, and how it ended. A terminal's output is all in `stdout`."""

    stdout: Captured
    stderr: Captured
    exit: ExitStatus

    @property
    def success(self) -> bool:
        return self.exit.success


@attrs.define(eq=False)
class Keeper:
    """Keeps the first `head` and the last `tail` bytes of what it is fed."""

    head: int
    tail: int
    size: int = 0
    _first: bytearray = attrs.Factory(bytearray)
    _last: bytearray = attrs.Factory(bytearray)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self.size += len(data)
        room = self.head - len(self._first)
        self._first += data[:room]
        self._last += data[room:]
        del self._last[: max(0, len(self._last) - self.tail)]

    def kept(self) -> Captured:
        """What there is so far."""
        return Captured(bytes(self._first), bytes(self._last), self.size)


async def capture(
    program: ExecHandle,
    *,
    head: int = DEFAULT_KEPT,
    tail: int = DEFAULT_KEPT,
    spill: str | os.PathLike[str] | None = None,
) -> CapturedOutput:
    """Read a program to its end, however much it writes: `async with await sb.exec_stream(…) as p: await capture(p)`.

    head, tail: bytes of each stream that are kept, of its beginning and of its end. spill: a file of the host for all
    of it, both streams as they came; it is made anew, and a slow disk slows the program down.

    Raises ValueError, what `ExecHandle.wait` raises (ExecTimeoutError with what was kept), and StorageError for
    `spill`, which is opened before anything is read. Cancellation: what was read is lost, but for what is in the file;
    the program is its block's to end.
    """
    if min(head, tail) < 0:
        raise ValueError("head and tail must not be negative")
    streams = {ExecEventType.STDOUT: Keeper(head, tail), ExecEventType.STDERR: Keeper(head, tail)}
    async with AsyncExitStack() as stack:
        file = None if spill is None else await stack.enter_async_context(_Spill(Path(spill)))
        async for event in program:
            if event.event_type in streams and event.data:
                streams[event.event_type].feed(event.data)
                if file is not None:
                    await file.write(event.data)
    kept, errors = (streams[kind].kept() for kind in (ExecEventType.STDOUT, ExecEventType.STDERR))
    try:
        await program.wait()
    except ExecTimeoutError as error:
        raise ExecTimeoutError(error.timeout, kept.head + kept.tail, errors.head + errors.tail) from None
    assert program.exit is not None
    return CapturedOutput(kept, errors, program.exit)


class _Spill:
    """A file that is written as output comes, by worker threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: anyio.AsyncFile[bytes] | None = None

    async def __aenter__(self) -> _Spill:
        try:
            self._file = await anyio.open_file(self._path, "wb", buffering=0)
        except OSError as error:
            raise self._refused(error) from error
        return self

    async def write(self, data: bytes) -> None:
        """Append all of it."""
        assert self._file is not None
        view = memoryview(data)
        try:
            while view:
                view = view[await self._file.write(view) :]
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> StorageError:
        return StorageError(str(self._path), error.errno or 0, error.strerror or str(error))

    async def __aexit__(self, *_: object) -> None:
        assert self._file is not None
        with anyio.CancelScope(shield=True):  # a file of this machine that has been written
            await self._file.aclose()
