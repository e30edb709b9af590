"""The life of a machine that is ready: running, paused, draining, until its end is asked for or has come by itself.

Runs in: the task of `serve_sandbox`. Owns: the watchdogs (liveness, idle, max duration). Ends when: the machine has
gone, its agent is lost, or an end was asked for. Cancellation: the watchdogs end; the machine is its owner's business.

What is asked of it are wishes, not commands: `pause`, `drain` and `end` set what is wanted, and the one loop below goes
there, through the states of the lifecycle table. All time is counted on the host, from what its own relay saw: nothing
that the guest writes can forge it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import RemoteProtocolError, SandboxDrainingError, SandboxError
from trio_sandbox.lifecycle import EndReason, Lifecycle, State
from trio_sandbox.machine import EXIT_TIMEOUT
from trio_sandbox.relay.link import AgentLink
from trio_sandbox.relay.liveness import Liveness
from trio_sandbox.relay.messages import (
    Clock,
)
from trio_sandbox.vm.qmp import QmpClosed, QmpError
from trio_sandbox.vm.running import RunningMachine

log = logging.getLogger("trio_sandbox.sandbox")

DRAIN_TIMEOUT = 10.0
"""Seconds that idle timeout and max duration leave the open sessions: one endless program must not defeat them."""
STOP_TIMEOUT = 10.0
"""Seconds for the guest to write its data and power off, where nobody said otherwise."""


@attrs.define(eq=False)
class Life:
    """One machine from ready to over. Made when the agent is ready."""

    config: SandboxConfig
    lifecycle: Lifecycle
    machine: RunningMachine
    link: AgentLink
    asked: EndReason | None = None
    stop_timeout: float = 0.0
    agent_was_lost: bool = False
    liveness: Liveness = attrs.field(init=False)
    _wants_pause: bool = False
    _drain_reason: EndReason | None = None
    _drain_deadline: float = math.inf
    _last_activity: float = attrs.Factory(trio.current_time)
    _vcpus: trio.Lock = attrs.Factory(trio.Lock)
    _news: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    def __attrs_post_init__(self) -> None:
        self.liveness = Liveness(self.link)
        self.link.on_activity = self._activity

    # -- what is wanted

    def end(self, reason: EndReason, stop_timeout: float = 0.0) -> None:
        """Have it end for `reason`, with so many seconds to power off. A kill overrides anything else."""
        if self.asked is None or reason is EndReason.KILLED:
            self.asked, self.stop_timeout = reason, stop_timeout
        self._news.unpark_all()

    def drain(self, reason: EndReason, timeout: float | None = None) -> None:
        """Have it take no new sessions, let the open ones finish, at most for `timeout` seconds, and then stop.

        A second request can only make it sooner.
        """
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        if self._drain_reason is None or deadline < self._drain_deadline:
            self._drain_reason, self._drain_deadline = reason, deadline
        self._news.unpark_all()

    async def wait_until_draining(self) -> None:
        """Return when a drain that was asked for has begun, or the life is over. Cancellation: no effect."""
        while State.DRAINING not in self.lifecycle.history and not self.over:
            await self._news.park()

    async def pause(self) -> None:
        """Return when the vCPUs stand still. Raises SandboxDrainingError. Cancellation: it may pause all the same."""
        await trio.lowlevel.checkpoint()
        if self._drain_reason is not None:
            raise SandboxDrainingError(self.config.name)
        await self._wish_pause(True, State.PAUSED)

    async def resume(self) -> None:
        """Return when the vCPUs run. Harmless when they do. Cancellation: it may resume all the same."""
        await trio.lowlevel.checkpoint()
        await self._wish_pause(False, State.RUNNING)

    async def _wish_pause(self, wish: bool, goal: State) -> None:
        self._wants_pause = wish
        self._news.unpark_all()
        while self.lifecycle.state is not goal and self._wants_pause is wish and not self.over and not self.draining:
            await self._news.park()

    @asynccontextmanager
    async def standing_still(self) -> AsyncIterator[None]:
        """Keep others from stopping the vCPUs or letting them go on, for the length of the block, in which the agent's
        silence does not count.
        """
        async with self._vcpus:
            self.liveness.suspend()
            try:
                yield
            finally:
                self.liveness.resume()

    def touch(self) -> None:
        """Count this moment as activity."""
        self._activity()

    @property
    def draining(self) -> bool:
        """Whether new sessions are refused for a drain."""
        return self._drain_reason is not None

    @property
    def paused(self) -> bool:
        """Whether the vCPUs stand still, or are about to."""
        return self._wants_pause or self.lifecycle.state is State.PAUSED

    @property
    def over(self) -> bool:
        """Whether this life has come to its end."""
        gone = self.machine.exited.is_set() or self.link.lost.is_set() or self.agent_was_lost
        return gone or self.asked is not None

    # -- living

    async def run(self) -> None:
        """Live until the end is asked for or has come by itself."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell, self.machine.exited.wait)
            nursery.start_soon(self._tell, self.link.lost.wait)
            nursery.start_soon(self._watch_agent)
            if self.config.idle_timeout is not None:
                nursery.start_soon(self._watch_idle, self.config.idle_timeout)
            if self.config.max_duration is not None:
                nursery.start_soon(self._watch_duration, self.config.max_duration)
            while not self.over:
                await self._one_state()
                self._news.unpark_all()
            nursery.cancel_scope.cancel(reason="the machine's life is over")
        if self.link.lost.is_set():
            with trio.move_on_after(EXIT_TIMEOUT) as patience:
                await self.machine.exited.wait()
            self.agent_was_lost = patience.cancelled_caught

    async def _one_state(self) -> None:
        if self._drain_reason is not None:
            with self.lifecycle.within(State.DRAINING):
                self._news.unpark_all()
                await self._drained()
        elif self._wants_pause:
            await self._stand_still()
        else:
            with self.lifecycle.within(State.RUNNING):
                self._news.unpark_all()
                await self._until(lambda: self._wants_pause or self._drain_reason is not None)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not self.over and not condition():
            await self._news.park()

    async def _drained(self) -> None:
        while not self.over and self.link.working:
            with trio.move_on_at(self._drain_deadline) as patience:
                await self._news.park()
            if patience.cancelled_caught and trio.current_time() >= self._drain_deadline:
                log.warning("%s: %d sessions did not end in time", self.config.name, len(self.link.working))
                break
        if not self.over:
            assert self._drain_reason is not None
            self.end(self._drain_reason, STOP_TIMEOUT)

    async def _stand_still(self) -> None:
        """Be paused, once nobody copies the machine."""
        async with self._vcpus:
            await self._pause()

    async def _pause(self) -> None:
        """Stop the vCPUs, stay PAUSED, and let them go on. Nobody resumes a machine that is to be killed."""
        began = trio.current_time()
        try:
            await self.machine.qmp.execute("stop")
        except (QmpError, QmpClosed) as error:
            log.warning("%s: cannot be paused: %s", self.config.name, error)
            self._wants_pause = False
            return
        self.liveness.suspend()
        with self.lifecycle.within(State.PAUSED):
            self._news.unpark_all()
            await self._until(lambda: not self._wants_pause or self._drain_reason is not None)
        self._wants_pause = False
        if self.machine.exited.is_set() or self.asked is EndReason.KILLED:
            return
        try:
            await self.machine.qmp.execute("cont")
        except (QmpError, QmpClosed) as error:
            log.warning("%s: cannot be resumed: %s", self.config.name, error)
            return
        if self.link.accepting:
            self.link.send(Clock(time.time_ns()))  # the guest's clock stood still too
        self.liveness.resume()
        self._last_activity += trio.current_time() - began

    # -- the watchdogs

    async def _tell(self, wait: Callable[[], Awaitable[object]]) -> None:
        await wait()
        self._news.unpark_all()

    async def _watch_agent(self) -> None:
        try:
            await self.liveness.run()
        except RemoteProtocolError:
            raise
        except SandboxError:  # the machine has gone meanwhile
            await trio.sleep_forever()
        self.agent_was_lost = True
        self._news.unpark_all()

    async def _watch_idle(self, idle_timeout: float) -> None:
        while True:  # noqa: ASYNC913 - every way through it parks, sleeps or returns
            left = self._last_activity + idle_timeout - trio.current_time()
            if self.lifecycle.state is State.PAUSED or self.link.working:
                await self._news.park()
            elif left > 0:
                with trio.move_on_after(left):
                    await self._news.park()
            else:
                self.drain(EndReason.IDLE, DRAIN_TIMEOUT)
                return

    async def _watch_duration(self, max_duration: float) -> None:
        await trio.sleep(max_duration)
        self.drain(EndReason.MAX_DURATION, DRAIN_TIMEOUT)

    def _activity(self) -> None:
        self._last_activity = trio.current_time()
        self._news.unpark_all()
