"""`open_pool`: sandboxes that are ready before anybody asks for them, each handed out once.

A member of the pool is one task, from its start to its end: it starts a sandbox, offers it, and ends it when its lease
is over, when it is too old, or with the pool. Owns: the members. Sandboxes are started in the background
(`admission.Urgency`), so that a pool fills up with what others leave; when somebody waits for one, it is a request like
all others.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

from trio_sandbox.admission.admitted import Urgency
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import PoolClosedError, SandboxError
from trio_sandbox.home import Home
from trio_sandbox.pool_options import pool_config
from trio_sandbox.process.plain_errors import from_plain, to_plain
from trio_sandbox.relay.messages import Clock
from trio_sandbox.runtime import Runtime
from trio_sandbox.sandbox import serve_sandbox
from trio_sandbox.service import service

HEALTH_TIMEOUT = 5.0
"""Seconds for a sandbox to answer a ping before it is handed out. Its guest may not have run for a long time."""
FIRST_BACK_OFF, LONGEST_BACK_OFF = 0.1, 30.0
"""Seconds until the next start after one that failed, and after many."""

Serve = Callable[..., Awaitable[object]]
"""Is the sandbox `(config, urgency)` until it ends, and reports `started(runtime)` when it is ready."""


@attrs.frozen
class PoolStatistics:
    """ready: idle, to be handed out. starting: on their way, or waiting for room on the host. leased: in use or ending.
    waiting: callers of `lease` that wait for one. failures: starts that failed, and idle sandboxes that died or did not
    answer, since the pool was opened.
    """

    ready: int
    starting: int
    leased: int
    waiting: int
    failures: int


@attrs.define(eq=False)
class _Member:
    """One sandbox of the pool."""

    config: SandboxConfig
    urgency: Urgency
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    runtime: Runtime | None = None
    is_idle: bool = False
    """Ready, and not handed out yet."""
    moved: trio.Event = attrs.Factory(trio.Event)
    """It is idle no more."""
    over: trio.Event = attrs.Factory(trio.Event)
    """Nobody needs it any more."""
    ended: trio.Event = attrs.Factory(trio.Event)
    """Nothing of it is left."""
    error: SandboxError | None = None

    def take(self) -> None:
        self.is_idle = False
        self.moved.set()

    async def end(self) -> None:
        """Have it ended, and wait until nothing of it is left, whatever happens."""
        self.over.set()
        with trio.CancelScope(shield=True):  # bounded: its machine is killed
            await self.ended.wait()

    async def watch(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Raise the crash that ends it."""
        task_status.started()
        await self.ended.wait()
        if self.error is not None:
            raise self.error
        await trio.sleep_forever()

    async def is_healthy(self) -> bool:
        """Whether the guest answers and can take programs."""
        assert self.runtime is not None
        with trio.move_on_after(HEALTH_TIMEOUT):
            try:
                await self.runtime.ping()
            except SandboxError:
                return False
            return True
        return False


class Pool:
    """Sandboxes that are ready; what `open_pool` gives. Not to be made by hand."""

    def __init__(self, name: str, config: SandboxConfig, warm_pool: int, max_age: float, serve: Serve) -> None:
        self.name = name
        self._config = config
        self._max_age = max_age
        self._serve = serve
        self._offer, self._offered = trio.open_memory_channel[_Member | SandboxError](warm_pool)
        self._places = trio.Semaphore(warm_pool)
        """How many more may be starting or idle."""
        self._members: list[_Member] = []
        self._filling = trio.CancelScope()
        self._empty = trio.Event()
        self._closed = False
        self._made = 0
        self._waiting = 0
        self._failures = 0
        self._failed_in_a_row = 0
        self._not_before = 0.0

    # -- what users call

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Sandbox]:
        """A sandbox that nobody has used, for the length of the block: `async with pool.lease() as sandbox:`.

        It has just answered a ping, and its clock has been put right. Leaving the block, in whatever way, kills the
        sandbox and removes it before it returns. Where none is ready, one is waited for: it is a start like any other
        then, under the pool's `admission_timeout`.

        Raises PoolClosedError once the pool is drained or closed, and the error of a start that failed when no other
        is under way; in the block, SandboxCrashedError as `open_sandbox` does. Cancellation: while waiting, nothing is
        taken; one that was just being looked at is killed; in the block, as for leaving it.
        """
        member = await self._take()
        try:
            async with service(member.watch, name=f"lease of {member.config.name}"):
                assert member.runtime is not None
                yield Sandbox(member.runtime)
        finally:
            await member.end()  # noqa: ASYNC102 - shielded and bounded within

    async def drain(self) -> None:
        """Start no more, end what is idle or starts, and return when the last lease is over.

        Whoever waits for a lease gets PoolClosedError. Cancellation: the pool goes on to drain.
        """
        self._close()
        await trio.lowlevel.checkpoint()
        if self._members:
            await self._empty.wait()

    def statistics(self) -> PoolStatistics:
        """What the pool has at this moment."""
        ready = sum(member.is_idle for member in self._members)
        starting = len(self._starting)
        return PoolStatistics(
            ready, starting, len(self._members) - ready - starting, self._waiting, failures=self._failures
        )

    # -- handing out

    async def _take(self) -> _Member:
        """A member that is healthy, which the caller has to end."""
        while True:
            if self._closed:
                raise PoolClosedError(self.name)
            member = await self._next()
            if not member.is_idle:  # it has died meanwhile
                continue
            member.take()
            self._places.release()
            member.urgency.hurry()
            try:
                healthy = await member.is_healthy()
            except BaseException:
                await member.end()  # noqa: ASYNC102, ASYNC120 - shielded and bounded within
                raise
            if healthy:
                self._failed_in_a_row = 0
                _set_clock(member)
                return member
            self._failures += 1
            member.over.set()

    async def _next(self) -> _Member:
        self._waiting += 1
        try:
            self._hurry()
            offered = await self._offered.receive()
        finally:
            self._waiting -= 1
        if isinstance(offered, SandboxError):
            raise from_plain(to_plain(offered)) from offered  # each waiter its own
        return offered

    @property
    def _starting(self) -> list[_Member]:
        return [member for member in self._members if member.runtime is None]

    def _hurry(self) -> None:
        """As many starts as callers wait are no background any more."""
        if self._offered.statistics().current_buffer_used:
            return
        for member in self._starting[: self._waiting]:
            member.urgency.hurry()

    def _tell_waiters(self, error: SandboxError) -> None:
        for _ in range(self._offered.statistics().tasks_waiting_receive):
            self._offer.send_nowait(error)  # straight into the hands of one that waits

    # -- members

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Own the members. They end with this."""
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                with self._filling:
                    await self._fill(nursery)
                await trio.sleep_forever()
        finally:
            self._close()

    async def _fill(self, nursery: trio.Nursery) -> None:
        while True:
            await self._places.acquire()
            await trio.sleep_until(self._not_before)
            self._made += 1
            config = attrs.evolve(self._config, name=f"{self.name}-{self._made}")
            member = _Member(config, Urgency(background=True))
            self._members.append(member)
            nursery.start_soon(self._live, member, name=f"member {config.name}")
            self._hurry()

    async def _live(self, member: _Member) -> None:
        try:
            with member.scope:
                async with service(self._be, member, name=f"sandbox {member.config.name}") as member.runtime:
                    self._offer_one(member)
                    with trio.move_on_after(self._max_age):
                        await member.moved.wait()
                    if not member.is_idle:
                        await member.over.wait()
        except SandboxError as error:
            member.error = error
            if member.is_idle or member.runtime is None:
                self._failed()
        finally:
            self._forget(member)

    async def _be(self, member: _Member, *, task_status: trio.TaskStatus[Runtime]) -> None:
        """Be the sandbox. One that ends as it was asked to is over."""
        await self._serve(member.config, member.urgency, task_status=task_status)
        if member.is_idle:
            member.scope.cancel(reason="it has ended by itself")
        await trio.sleep_forever()

    def _offer_one(self, member: _Member) -> None:
        member.is_idle = True
        still = []  # the channel is as large as the pool, but may hold some that have died
        while self._offered.statistics().current_buffer_used:
            still.append(self._offered.receive_nowait())
        for one in (*still, member):
            if isinstance(one, _Member) and one.is_idle:
                self._offer.send_nowait(one)

    def _failed(self) -> None:
        delay = min(FIRST_BACK_OFF * 2**self._failed_in_a_row, LONGEST_BACK_OFF)
        self._failed_in_a_row = min(self._failed_in_a_row + 1, 16)
        self._failures += 1
        self._not_before = trio.current_time() + delay

    def _forget(self, member: _Member) -> None:
        """Nothing of it is left."""
        was_warm = member.is_idle or member.runtime is None
        member.take()
        member.ended.set()
        self._members.remove(member)
        if was_warm:
            self._places.release()
        if member.runtime is None and member.error is not None and not self._starting:
            self._tell_waiters(member.error)
        if self._closed and not self._members:
            self._empty.set()

    def _close(self) -> None:
        self._closed = True
        self._filling.cancel(reason="the pool is closed")
        self._tell_waiters(PoolClosedError(self.name))
        for member in self._members:
            if member.is_idle or member.runtime is None:
                member.scope.cancel(reason="the pool is closed")


def _set_clock(member: _Member) -> None:
    """Put the guest's clock right: the host may have slept while it was idle."""
    assert member.runtime is not None and member.runtime.link is not None
    member.runtime.link.send(Clock(time.time_ns()))


@asynccontextmanager
async def open_pool(
    name: str, *, warm_pool: int = 2, max_age: float = 3600.0, home: Home | None = None, **options: Any
) -> AsyncIterator[Pool]:
    """A pool for the length of a block: `async with open_pool("tests", warm_pool=4, image="local/base") as pool:`.

    name: its sandboxes are NAME-1, NAME-2, … warm_pool: how many are kept ready, 1 to 256 (2). max_age: seconds after
    which one that nobody took is replaced (3600). home and options: as for `open_sandbox`, the same for all; a disk
    image, `listen` and a WebSocket's port can be had once only, so they are refused.

    The pool fills in the background, with what others leave of the host: at most half of each limit (docs/limits.md),
    and never before a creation that waits. Starts that fail are tried again after 0.1 s, and less and less often, at
    least every 30 s.

    Raises InvalidConfigError, UnsupportedError, before anything is started. Leaving the block, in whatever way, kills
    and removes all its sandboxes before it returns, those that tasks outside of it have leased too. Trio only.
    """
    config = pool_config(name, warm_pool, max_age, options)
    where = home or Home.default()
    serve = partial(_serve, where)
    async with running_pool(Pool(name, config, warm_pool, max_age, serve)) as pool:
        yield pool


@asynccontextmanager
async def running_pool(pool: Pool) -> AsyncIterator[Pool]:
    """The pool at work for the length of the block."""
    async with service(pool.run, name=f"pool {pool.name}"):
        yield pool


async def _serve(home: Home, config: SandboxConfig, urgency: Urgency, *, task_status: trio.TaskStatus[Runtime]) -> None:
    await serve_sandbox(config, home, urgency=urgency, task_status=task_status)
