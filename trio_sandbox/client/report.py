"""What a forked process says of its work (`process/order.py`, `image_order.py`), line by line. anyio only."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import anyio
import attrs

from trio_sandbox.errors import BootError
from trio_sandbox.process.order import Ready
from trio_sandbox.process.plain_errors import from_plain
from trio_sandbox.pull_event import PullEvent

READ_SIZE = 65_536


@attrs.define(eq=False)
class Report:
    """Our end of the pipe. Its end is the end of the process."""

    descriptor: int
    ready: Ready | None = None
    result: Sequence[str] | None = None
    _rest: bytearray = attrs.Factory(bytearray)

    async def next_event(self) -> PullEvent | None:
        """The next step of the image; None when the sandbox is ready, or the work done, now and ever after.

        Raises the error that kept it from that, BootError when the process ended without a word. Cancellation: nothing
        is lost.
        """
        if self.ready is not None or self.result is not None:
            return None
        message: dict[str, Any] = json.loads(await self._line())
        if "error" in message:
            raise from_plain(message["error"])
        if "pull" in message:
            return PullEvent(**message["pull"])
        if "result" in message:
            self.result = tuple(message["result"])
        else:
            self.ready = Ready.from_plain(message["ready"])
        return None

    async def _line(self) -> bytes:
        while b"\n" not in self._rest:
            await anyio.wait_readable(self.descriptor)
            piece = os.read(self.descriptor, READ_SIZE)
            if not piece:
                raise BootError("process", "the process ended before it had said anything")
            self._rest += piece
        line, _, rest = self._rest.partition(b"\n")
        self._rest = bytearray(rest)
        return bytes(line)

    async def ended(self) -> None:
        """Wait for the end of the process. Cancellation: no effect."""
        while True:
            await anyio.wait_readable(self.descriptor)
            if not os.read(self.descriptor, READ_SIZE):
                return
