"""What the guest prints on its serial console: the last of it in memory, the first of it in a file.

The guest writes it, so it is bounded: a guest that prints for ever fills neither memory nor disk.
"""

from __future__ import annotations

import os

import trio

TAIL_SIZE = 32_768
"""Bytes kept in memory, the newest."""
LOG_LIMIT = 10 << 20
"""Bytes written to the log file; what comes later is only in the tail."""


class ConsoleLog:
    """The console of one machine. `ended`: nothing more can come. `file`: a descriptor to write to, or None."""

    def __init__(self, file: int | None) -> None:
        self._file = file
        self._tail = bytearray()
        self._written = 0
        self.ended = trio.Event()

    def append(self, data: bytes) -> None:
        """Take bytes of the console."""
        self._tail += data
        del self._tail[:-TAIL_SIZE]
        if self._file is not None and self._written < LOG_LIMIT:
            piece = data[: LOG_LIMIT - self._written]
            try:
                self._written += os.write(self._file, piece)
            except OSError:  # a full disk must not take the machine down: evidence is worth less than the work
                self._file = None

    def tail(self) -> str:
        """The newest text, control characters made harmless."""
        text = self._tail.decode("utf-8", errors="replace")
        return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text.replace("\r", ""))


async def drain(
    stream: trio.abc.ReceiveStream,
    console: ConsoleLog,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Read until the far end is gone, then stay until cancelled: the block decides when this service ends."""
    task_status.started()
    try:
        while data := await stream.receive_some(65_536):
            console.append(bytes(data))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        console.ended.set()
    await trio.sleep_forever()
