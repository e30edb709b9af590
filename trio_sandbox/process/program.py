"""The sandbox process: one sandbox, served to clients on its socket, until it ends. Trio only.

It reports to whoever asked for it over a pipe: one line of JSON when the sandbox is ready, or with the error that kept
it from that. It holds one end of a *leash*: while the sandbox is created, and for an attached one for all its life, the
end of the leash means that whoever holds the other end has gone. A byte on the leash sets the sandbox free. A pidfd of
the creator says the same as the leash, should a relative of the creator hold that open.
"""

from __future__ import annotations

import json
import os
from typing import Any

import attrs
import trio

from trio_sandbox.lifecycle import EndReason
from trio_sandbox.process.order import Order
from trio_sandbox.process.plain_errors import to_plain
from trio_sandbox.runtime import Runtime
from trio_sandbox.sandbox import serve_sandbox
from trio_sandbox.state.places import socket_of

PARENT_GONE_TIMEOUT = 10.0
"""Seconds that a sandbox whose creator is gone has to write its data and power off."""


def run(creator: int, payload: int, report: int, leash: int) -> int:
    """Be the sandbox process until its sandbox has ended; the exit status. The descriptors are ours."""
    with open(payload, encoding="utf-8") as file:
        order = Order.from_json(file.read())
    _leave_terminal()
    try:
        trio.run(_main, order, creator, report, leash)
    except BaseException as error:  # noqa: ASYNC103 - not in Trio any more: the process ends next
        _say(report, {"error": to_plain(error)})
        return 1  # noqa: ASYNC104 - the same
    return 0


def _leave_terminal() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    os.chdir("/")


def _say(report: int, message: dict[str, Any]) -> None:
    try:
        os.write(report, json.dumps(message).encode() + b"\n")
    except BrokenPipeError:
        pass  # nobody wants to know any more


async def _main(order: Order, creator: int, report: int, leash: int) -> None:
    async with trio.open_nursery() as nursery:
        watch = _Watch(leash, creator, nursery.cancel_scope)
        nursery.start_soon(watch.run)
        await _serve(order, report, watch)
        nursery.cancel_scope.cancel(reason="the sandbox has ended")


async def _serve(order: Order, report: int, watch: _Watch) -> None:
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[Runtime]) -> None:
            await serve_sandbox(
                order.config,
                order.home,
                tenure=order.tenure,
                detached=order.detached,
                socket=socket_of(order.home, order.config.name),
                task_status=task_status,
            )

        watch.runtime = await nursery.start(serve)
        # The pipe stays open: its end tells whoever still listens that the process has ended.
        _say(report, {"ready": watch.runtime.addresses[0], "pid": os.getpid()})


@attrs.define(eq=False)
class _Watch:
    """Whether the creator is still there."""

    leash: int
    creator: int
    starting: trio.CancelScope
    runtime: Runtime | None = None

    async def run(self) -> None:
        """Return when the sandbox was set free. When the creator goes before that, the sandbox stops."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_process, nursery.cancel_scope)
            await trio.lowlevel.wait_readable(self.leash)
            if not os.read(self.leash, 1):
                self._gone()
            nursery.cancel_scope.cancel(reason="set free, or left alone")

    async def _watch_process(self, scope: trio.CancelScope) -> None:
        try:
            descriptor = os.pidfd_open(self.creator)
        except ProcessLookupError:
            pass
        else:
            try:
                await trio.lowlevel.wait_readable(descriptor)
            finally:
                os.close(descriptor)
        self._gone()
        scope.cancel(reason="the creator has gone")

    def _gone(self) -> None:
        if self.runtime is None:
            self.starting.cancel(reason="whoever asked for the sandbox has gone")
        elif self.runtime.life is not None:
            self.runtime.life.end(EndReason.PARENT_GONE, PARENT_GONE_TIMEOUT)
