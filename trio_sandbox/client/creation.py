"""Sandboxes in a process of their own: created, or started again. anyio only.

The order of things, and what a cancellation at any of them leaves: the process is forked and makes the sandbox; it
reports that it is ready, or why not; we connect. Until then closing the leash makes the process end whatever it has
begun, and we wait until it has, for at most ABORT_TIMEOUT.
"""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from trio_sandbox.client.connection import open_connection
from trio_sandbox.client.ownership import Ownership
from trio_sandbox.client.remote import CONNECT_TIMEOUT, RemoteControl
from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import BootError, ConnectionLostError
from trio_sandbox.home import Home
from trio_sandbox.process.order import Order
from trio_sandbox.process.plain_errors import from_plain
from trio_sandbox.process.spawn import Spawned, fork_server
from trio_sandbox.state.rows import SandboxRow, Tenure

ABORT_TIMEOUT = 15.0
"""Seconds that a cancelled creation waits until the process has undone what it had begun."""
REPORT_SIZE = 1 << 20


async def make_sandbox(config: SandboxConfig, home: Home, tenure: Tenure, *, detached: bool) -> RemoteControl:
    """A sandbox process, and a connection to it that owns it. Raises what `serve_sandbox` raises before it is ready.

    Cancellation: nothing of a new sandbox is left, and one that is started again is stopped.
    """
    if config.ephemeral and tenure is Tenure.NEW:
        tenure = Tenure.EPHEMERAL
    order = Order(config, home, tenure, detached).to_json()
    with anyio.CancelScope(shield=True):  # milliseconds, but for the first start of the fork server: half a second
        spawned = await anyio.to_thread.run_sync(lambda: fork_server().spawn(order))
    try:
        ready = await _report(spawned.report)
        control = await _connected(ready["ready"])
    except BaseException:
        with anyio.CancelScope(shield=True):
            await _abort(spawned)
        raise
    control.ownership = Ownership(home, config.name, spawned.leash, spawned.report)
    return control


async def _report(report: int) -> dict[str, Any]:
    """What the process says first. Raises the error that it reports."""
    line = bytearray()
    while not line.endswith(b"\n"):
        await anyio.wait_readable(report)
        piece = os.read(report, REPORT_SIZE)
        if not piece:
            raise BootError("process", "the sandbox process ended before it had said anything")
        line += piece
    message: dict[str, Any] = json.loads(line)
    if "error" in message:
        raise from_plain(message["error"])
    return message


async def _connected(address: str) -> RemoteControl:
    connection = await open_connection(address)
    try:
        with anyio.fail_after(CONNECT_TIMEOUT):
            return RemoteControl(connection, await connection.join(control=False, wait=0))
    except BaseException:
        with anyio.CancelScope(shield=True):  # closing a socket does not wait
            await connection.aclose()
        raise


async def _abort(spawned: Spawned) -> None:
    os.close(spawned.leash)
    with anyio.move_on_after(ABORT_TIMEOUT):
        while True:
            await anyio.wait_readable(spawned.report)
            if not os.read(spawned.report, REPORT_SIZE):
                break
    os.close(spawned.report)


async def connect_to(row: SandboxRow, timeout: float) -> RemoteControl:
    """A connection to a sandbox that runs, which does not own it. Raises ConnectionLostError."""
    control: RemoteControl | None = None
    with anyio.move_on_after(timeout):
        control = await _connected(row.socket)
    if control is None:
        raise ConnectionLostError(row.socket)
    return control


async def in_thread(function: Any, *arguments: Any, **named: Any) -> Any:
    """A call of the store, which may wait for another process for a moment."""
    return await anyio.to_thread.run_sync(partial(function, *arguments, **named))
