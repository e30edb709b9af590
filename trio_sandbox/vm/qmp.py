"""QMP, QEMU's machine protocol, on Trio: one reader task, requests matched to answers by id, events kept for who asks.

Runs in: the caller's tasks, and `serve` in one task that the owner starts. Owns: the monitor socket. Ends when: QEMU
closes it.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import attrs
import trio

from trio_sandbox.errors import RemoteProtocolError, SandboxError

MAX_LINE = 1 << 20
"""Bytes of one answer. QEMU is ours, but the guest can influence what some answers contain."""


class QmpError(SandboxError):
    """QEMU refused a command. `command` and QEMU's own `description`."""

    def __init__(self, command: str, description: str) -> None:
        self.command = command
        self.description = description
        super().__init__(f"{command}: {description}")


class QmpClosed(SandboxError):
    """The monitor is closed: QEMU is gone or going."""


@attrs.define(eq=False)
class _Pending:
    done: trio.Event = attrs.Factory(trio.Event)
    answer: dict[str, Any] | None = None


class QmpClient:
    """One monitor connection. `shutdown_reason` is what QEMU last said about why it ends, None before that."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._send_lock = trio.Lock()
        self._closed = False
        self.ended = trio.Event()
        self.shutdown_reason: str | None = None
        self.panicked = False

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Negotiate, read until QEMU closes the monitor, stay until cancelled. A broken monitor is a closed one."""
        task_status.started()
        try:
            await self._send({"execute": "qmp_capabilities"})
            await self._read_lines()
        except (trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError):
            pass
        finally:
            self._closed = True
            self.ended.set()
            for pending in self._pending.values():
                pending.done.set()
        await trio.sleep_forever()

    async def _read_lines(self) -> None:
        buffer = bytearray()
        while data := await self._stream.receive_some(65_536):
            buffer += data
            *lines, rest = bytes(buffer).split(b"\n")
            buffer = bytearray(rest)
            if len(buffer) > MAX_LINE:
                raise RemoteProtocolError(f"a QMP line of more than {MAX_LINE} bytes")
            for line in lines:
                if line.strip():
                    self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError as error:
            raise RemoteProtocolError(f"QMP: {error}") from error
        if not isinstance(message, dict):
            raise RemoteProtocolError("QMP: not a map")
        if message.get("event") == "SHUTDOWN":
            self.shutdown_reason = str(message.get("data", {}).get("reason", "unknown"))
        elif message.get("event") == "GUEST_PANICKED":
            self.panicked = True
        elif (pending := self._pending.get(message.get("id", 0))) is not None:
            pending.answer = message
            pending.done.set()

    async def _send(self, message: dict[str, Any]) -> None:
        async with self._send_lock:
            try:
                await self._stream.send_all(json.dumps(message).encode() + b"\n")
            except trio.Cancelled:
                self._closed = True  # half a line may be out: nothing after it can be understood
                raise

    async def execute(self, command: str, **arguments: object) -> Any:
        """Run one command and return its answer. Raises QmpError when QEMU refuses, QmpClosed when it is gone.

        Cancellation: the command may still be carried out; its answer is dropped.
        """
        if self._closed:
            raise QmpClosed(f"{command}: the monitor is closed")
        number = next(self._numbers)
        pending = self._pending[number] = _Pending()
        try:
            await self._send({"execute": command, "id": number, "arguments": arguments})
            await pending.done.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise QmpClosed(f"{command}: the monitor broke") from error
        finally:
            del self._pending[number]
        if pending.answer is None:
            raise QmpClosed(f"{command}: QEMU went away before it answered")
        if "error" in pending.answer:
            raise QmpError(command, str(pending.answer["error"].get("desc", "no reason given")))
        return pending.answer.get("return")
