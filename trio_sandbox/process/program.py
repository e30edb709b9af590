"""The sandbox process: one sandbox, served to clients on its socket, until it ends. Trio only.

What it says to its creator and hears from it is in `order.py`. It holds one end of the *leash*, and a pidfd of the
creator, which says the same should a relative of the creator hold the leash's other end open.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import attrs
import trio

from trio_sandbox.lifecycle import EndReason
from trio_sandbox.logs.runtime_log import set_verbosity
from trio_sandbox.process.creator import wait_until_gone
from trio_sandbox.process.image_order import ImageOrder, is_image_order
from trio_sandbox.process.image_program import work_on_images
from trio_sandbox.process.order import DISCARD, FREE, Order, Ready
from trio_sandbox.process.plain_errors import to_plain
from trio_sandbox.process.reporting import say, say_event
from trio_sandbox.pull_event import PullEvent
from trio_sandbox.runtime import Runtime
from trio_sandbox.sandbox import serve_sandbox
from trio_sandbox.state.places import socket_of, store_of
from trio_sandbox.state.reaper import reap

PARENT_GONE_TIMEOUT = 10.0
"""Seconds that a sandbox whose creator is gone has to write its data and power off."""


def run(creator: int, payload: int, report: int, leash: int) -> int:
    """Be the sandbox process until its sandbox has ended; the exit status. The descriptors are ours."""
    with open(payload, encoding="utf-8") as file:
        text = file.read()
    _leave_terminal()
    if is_image_order(text):
        return work_on_images(ImageOrder.from_json(text), creator, report, leash)
    order = Order.from_json(text)
    creation = _Creation(report, leash, creator, order.detached)
    set_verbosity(order.config.log_level)
    try:
        trio.run(_main, order, creation)
    except BaseException as error:  # noqa: ASYNC103 - not in Trio any more: the process ends next
        if not creation.is_over:  # whoever waits for a sandbox waits for nothing else later
            creation.say({"error": to_plain(error)})
        return 1  # noqa: ASYNC104 - the same
    return 0


def _leave_terminal() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    os.chdir("/")


async def _main(order: Order, creation: _Creation) -> None:
    async with trio.open_nursery() as nursery:
        creation.scope = nursery.cancel_scope
        nursery.start_soon(creation.watch)
        nursery.start_soon(reap, partial(trio.to_thread.run_sync, store_of(order.home).reconcile))
        await _serve(order, creation)
        nursery.cancel_scope.cancel(reason="the sandbox has ended")


async def _serve(order: Order, creation: _Creation) -> None:
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[Runtime]) -> None:
            await serve_sandbox(
                order.config,
                order.home,
                tenure=order.tenure,
                detached=order.detached,
                socket=socket_of(order.home, order.config.name),
                on_pull=creation.pulled,
                is_kept=lambda: creation.is_kept,
                source=order.source,
                task_status=task_status,
            )

        creation.runtime = runtime = await nursery.start(serve)
        creation.is_over = True
        # The pipe stays open: its end tells whoever still listens that the process has ended.
        assert runtime.record is not None
        identity = runtime.record.identity
        creation.say({"ready": Ready(runtime.addresses, runtime.token, runtime.timings, identity).to_plain()})


@attrs.define(eq=False)
class _Creation:
    """The two pipes to the creator, and what has become of the creation.

    detached: the sandbox outlives the creator. is_over: the sandbox is ready, and nothing more is said. is_kept: the
    creator has it, and it stays after its end.
    """

    report: int
    leash: int
    creator: int
    detached: bool
    is_over: bool = False
    is_kept: bool = False
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    runtime: Runtime | None = None
    _is_settled: bool = False

    # -- what is said

    def say(self, message: dict[str, Any]) -> None:
        """Say something that matters; waits until it is read, or nobody is left to read it."""
        say(self.report, message)

    def pulled(self, event: PullEvent) -> None:
        """Say how far the image is, if there is room for it: nobody need listen."""
        say_event(self.report, event)

    # -- what is heard

    async def watch(self) -> None:
        """Return when the creator has nothing more to say. Before that, its going ends an attached sandbox."""
        os.set_blocking(self.leash, False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_process, nursery.cancel_scope)
            while True:
                await trio.lowlevel.wait_readable(self.leash)
                if self._hear():
                    break
            nursery.cancel_scope.cancel(reason="set free, or left alone")

    def _hear(self) -> bool:
        """Take what is on the leash; whether nothing more will come of it."""
        while not self._is_settled:
            try:
                heard = os.read(self.leash, 1)
            except BlockingIOError:
                return False
            if not heard:
                self._gone()
                break
            self.is_kept = heard != DISCARD
            self._is_settled = heard in (FREE, DISCARD)
            if heard == DISCARD:
                self._end(EndReason.KILLED)
        self._is_settled = True
        return True

    async def _watch_process(self, scope: trio.CancelScope) -> None:
        await wait_until_gone(self.creator)
        if not self._hear():  # what it said before it went
            self._gone()
        scope.cancel(reason="the creator has gone")

    def _gone(self) -> None:
        if self.runtime is None or not self.is_kept:
            self.scope.cancel(reason="whoever asked for the sandbox has gone")
        elif not self.detached:
            self._end(EndReason.PARENT_GONE, PARENT_GONE_TIMEOUT)

    def _end(self, reason: EndReason, timeout: float = 0.0) -> None:
        if self.runtime is not None and self.runtime.life is not None:
            self.runtime.life.end(reason, timeout)
