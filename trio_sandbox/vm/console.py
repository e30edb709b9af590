"""What the guest prints on its serial console: the last of it is kept, and all of it is shown to whoever logs it."""

from __future__ import annotations

from collections.abc import Callable

import trio

TAIL_SIZE = 32_768
"""Bytes kept in memory, the newest."""

Record = Callable[[bytes], None]
"""Takes a piece of the console as it comes. Must not wait, and bounds what it keeps: the guest can print for ever."""


class ConsoleLog:
    """The console of one machine. `ended`: nothing more can come."""

    def __init__(self, record: Record | None) -> None:
        self._record = record
        self._tail = bytearray()
        self.ended = trio.Event()

    def append(self, data: bytes) -> None:
        """Take bytes of the console."""
        self._tail += data
        del self._tail[:-TAIL_SIZE]
        if self._record is not None:
            self._record(data)

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
