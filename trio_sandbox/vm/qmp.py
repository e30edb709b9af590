"""QMP, QEMU's machine protocol, on Trio: one reader task, requests matched to answers by id, events kept for who asks.

Runs in: the caller's tasks, and `serve` in one task that the owner starts. Owns: the monitor socket. Ends when: QEMU
closes it.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
from typing import Any

import attrs
import trio

from trio_sandbox.errors import RemoteProtocolError, SandboxError

MAX_LINE = 1 << 20
"""Bytes of one answer. QEMU is ours, but the guest can influence what some answers contain."""


SEND_TIMEOUT = 10.0
"""Seconds for QEMU to read a command."""
LENT = "/dev/fdset/"
SAVE_POLL = 0.002
"""Seconds between looks at a device state that is being saved. QEMU 7.2 tells by no event when it is done."""
IGNORE_SHARED: dict[str, Any] = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}


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
    command: str
    number: int
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

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Negotiate, read until QEMU closes the monitor, stay until cancelled. A broken monitor is a closed one."""
        try:
            try:
                await self._send(
                    {"execute": "qmp_capabilities"}
                )  # before any other command: the socket is empty as yet
            finally:
                task_status.started()
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
        elif (pending := self._pending.get(message.get("id", 0))) is not None:
            pending.answer = message
            pending.done.set()

    async def _send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        # QEMU reads its monitor byte by byte, at some 15 us each: a clone's script is worth keeping short.
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        async with self._send_lock:
            # A line once begun is sent whole: behind half of one nothing could be understood.
            with trio.move_on_after(SEND_TIMEOUT, shield=True) as patience:
                if descriptor is None:
                    await self._stream.send_all(line)
                else:
                    await _send_with_descriptor(self._stream, line, descriptor)
            if patience.cancelled_caught:
                self._closed = True
                raise trio.BrokenResourceError(f"QEMU has read nothing for {SEND_TIMEOUT:g} s")

    async def _request(self, command: str, arguments: dict[str, Any], descriptor: int | None = None) -> _Pending:
        if self._closed:
            raise QmpClosed(f"{command}: the monitor is closed")
        pending = _Pending(command, next(self._numbers))
        self._pending[pending.number] = pending
        try:
            message: dict[str, Any] = {"execute": command, "id": pending.number}
            await self._send({**message, "arguments": arguments} if arguments else message, descriptor)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            del self._pending[pending.number]
            raise QmpClosed(f"{command}: the monitor broke") from error
        except BaseException:
            del self._pending[pending.number]
            raise
        return pending

    async def _answer(self, pending: _Pending) -> Any:
        try:
            await pending.done.wait()
        finally:
            del self._pending[pending.number]
        if pending.answer is None:
            raise QmpClosed(f"{pending.command}: QEMU went away before it answered")
        if "error" in pending.answer:
            raise QmpError(pending.command, str(pending.answer["error"].get("desc", "no reason given")))
        return pending.answer.get("return")

    async def restore(self, state: int) -> None:
        """Make a QEMU that was started with `-incoming defer` go on from the device state in descriptor `state`.

        The whole script is sent before the first answer is awaited, so that QEMU finds it when it first looks. Memory
        stays where it is (x-ignore-shared), and the state comes by descriptor, which the system call filter allows.
        Raises QmpError, QmpClosed.
        """
        script = [
            await self._request("migrate-set-capabilities", IGNORE_SHARED),
            await self._request("getfd", {"fdname": "s"}, state),
            await self._request("migrate-incoming", {"uri": "fd:s"}),
        ]
        for pending in script:
            await self._answer(pending)

    async def save(self, state: int) -> None:
        """Write the device state, but not the memory, into the file of descriptor `state`; the machine stands still
        then.

        Raises QmpError, QmpClosed. Cancellation: the machine is of no more use.
        """
        await self.execute("migrate-set-capabilities", **IGNORE_SHARED)
        await self._answer(await self._request("getfd", {"fdname": "s"}, state))
        await self.execute("migrate", uri="fd:s")
        while (status := (await self.execute("query-migrate")).get("status")) != "completed":
            if status in ("failed", "cancelled"):
                raise QmpError("migrate", f"the device state could not be saved: {status}")
            await trio.sleep(SAVE_POLL)

    async def lend(self, descriptor: int) -> str:
        """A name by which QEMU can open the file of `descriptor`, in its access mode; `take_back` ends that.

        Raises QmpError, QmpClosed.
        """
        lent = await self._answer(await self._request("add-fd", {}, descriptor))
        return f"{LENT}{lent['fdset-id']}"

    async def take_back(self, name: str) -> None:
        """QEMU can open it no more; what has it open keeps it."""
        await self.execute("remove-fd", **{"fdset-id": int(name.removeprefix(LENT))})

    async def execute(self, command: str, **arguments: object) -> Any:
        """Run one command and return its answer. Raises QmpError when QEMU refuses, QmpClosed when it is gone.

        Cancellation: the command may still be carried out; its answer is dropped.
        """
        return await self._answer(await self._request(command, arguments))


async def _send_with_descriptor(stream: trio.abc.Stream, line: bytes, descriptor: int) -> None:
    assert isinstance(stream, trio.SocketStream), "descriptors travel over sockets only"
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))]
    sent = await stream.socket.sendmsg([line], rights)
    await stream.send_all(line[sent:])
