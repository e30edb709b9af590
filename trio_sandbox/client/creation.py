"""Sandboxes in a process of their own: created, or started again. anyio only.

The order of things, and what a cancellation at any of them leaves: the process is forked and makes the sandbox; it
reports that it is ready, or why not; we connect, and say that we have it. Until then closing the leash makes the
process undo whatever it has begun, and we wait until it has (`forked.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import attrs

from trio_sandbox.client.connection import open_connection
from trio_sandbox.client.forked import ForkedWork
from trio_sandbox.client.ownership import Ownership
from trio_sandbox.client.remote import CONNECT_TIMEOUT, RemoteControl
from trio_sandbox.client.shielded import shielded
from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import ConnectionLostError
from trio_sandbox.home import Home
from trio_sandbox.process.order import KEEP, Order
from trio_sandbox.pull_event import PullEvent
from trio_sandbox.state.rows import SandboxRow, Tenure

T = TypeVar("T")


async def make_sandbox(
    config: SandboxConfig, home: Home, tenure: Tenure, *, detached: bool, source: Mapping[str, Any] | None = None
) -> RemoteControl:
    """A sandbox process, and a connection to it that owns it. source: what it is forked from, if it is.

    Raises what `serve_sandbox` raises before it is ready. Cancellation: nothing of a new sandbox is left, and one that
    is started again does not run.
    """
    creation = await Creation.begin(config, home, tenure, detached=detached, source=source)
    try:
        return await creation.taken_over()
    except BaseException:
        await shielded(creation.abort)  # noqa: ASYNC102 - it is
        raise


@attrs.define(eq=False)
class Creation:
    """A sandbox process that was asked for. It ends in `taken_over`, or else must be ended by `abort`."""

    order: Order
    _work: ForkedWork

    @classmethod
    async def begin(
        cls,
        config: SandboxConfig,
        home: Home,
        tenure: Tenure,
        *,
        detached: bool,
        source: Mapping[str, Any] | None = None,
    ) -> Creation:
        """Have the process forked. Raises HostNotReadyError. Cancellation: nothing is left."""
        if config.ephemeral and tenure is Tenure.NEW:
            tenure = Tenure.EPHEMERAL
        order = Order(config, home, tenure, detached, source)
        return cls(order, await ForkedWork.begin(order.to_json()))

    async def next_event(self) -> PullEvent | None:
        """The next step of the image, None when the sandbox is ready. Raises why it never will be."""
        return await self._work.next_event()

    async def taken_over(self) -> RemoteControl:
        """The sandbox, when it is ready: ours from now on."""
        while await self.next_event() is not None:
            pass
        work = self._work
        ready = work.report.ready
        assert ready is not None
        control = await _connected(ready.addresses[0])
        control.home, control.ready = self.order.home, ready
        self._say(KEEP)
        work.is_mine = False
        control.ownership = Ownership(
            self.order.home, self.order.config.name, work.spawned.pid, work.spawned.leash, work.report
        )
        return control

    def _say(self, word: bytes) -> None:
        try:
            os.write(self._work.spawned.leash, word)
        except BrokenPipeError:  # it has ended already: whoever uses the sandbox will hear how
            pass

    async def abort(self) -> None:
        """Undo it, if it was not taken over: see `ForkedWork.abort`."""
        await self._work.abort()


async def _connected(address: str) -> RemoteControl:
    connection = await open_connection(address)
    try:
        with anyio.move_on_after(CONNECT_TIMEOUT):
            return RemoteControl(connection, await connection.join(control=False, wait=0))
        raise ConnectionLostError(address)
    except BaseException:
        with anyio.CancelScope(shield=True):  # closing a socket does not wait
            await connection.aclose()
        raise


async def connect_to(row: SandboxRow, home: Home, timeout: float) -> RemoteControl:
    """A connection to a sandbox that runs, which does not own it. Raises ConnectionLostError."""
    control: RemoteControl | None = None
    with anyio.move_on_after(timeout):
        control = await _connected(row.socket)
    if control is None:
        raise ConnectionLostError(row.socket)
    control.home = home
    return control


async def in_thread(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """A call of the store, which may wait for another process for a moment."""
    return await anyio.to_thread.run_sync(partial(function, *arguments, **named))
