"""The pool in front of simulated guests, in virtual time: who gets what, what is replaced, and what is left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.cancelling import cancelled_at, cancelled_everywhere
from trio_sandbox import (
    BootError,
    InvalidConfigError,
    PoolClosedError,
    Sandbox,
    SandboxCrashedError,
    SandboxNotRunningError,
    open_pool,
)
from trio_sandbox.config import WebSocketAddress
from trio_sandbox.pool import FIRST_BACK_OFF, HEALTH_TIMEOUT, LONGEST_BACK_OFF, Pool, PoolStatistics
from trio_sandbox.testing import SimulatedGuest, simulated_pool

pytestmark = pytest.mark.anyio


class Guests:
    """Makes the guests of a pool, and remembers them. broken: how many starts fail first."""

    def __init__(self, broken: int = 0) -> None:
        self.made: list[SimulatedGuest] = []
        self.tries: list[float] = []
        self.broken = broken

    def __call__(self) -> SimulatedGuest:
        self.tries.append(trio.current_time())
        if len(self.tries) <= self.broken:
            raise BootError("kernel", f"try {len(self.tries)}")
        self.made.append(SimulatedGuest())
        return self.made[-1]

    @property
    def on(self) -> int:
        return sum(guest.is_on for guest in self.made)


def figures(pool: Pool) -> tuple[int, int, int]:
    statistics = pool.statistics()
    return statistics.ready, statistics.starting, statistics.leased


async def filled(pool: Pool, ready: int) -> None:
    await wait_all_tasks_blocked()
    assert figures(pool)[:2] == (ready, 0)


async def test_bad_options_are_refused_together() -> None:
    options: dict[str, Any] = {"image": "local/base", "listen": "/x", "websocket": WebSocketAddress(port=80)}
    with pytest.raises(InvalidConfigError) as caught:
        async with open_pool("-p", warm_pool=0, max_age=0, colour="red", **options):
            pass
    words = ["name", "warm_pool", "max_age", "listen", "websocket", "unknown option 'colour'"]
    assert len(caught.value.problems) == len(words)
    for word in words:
        assert any(problem.startswith(word) for problem in caught.value.problems), word


async def test_a_disk_image_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="disk image"):
        async with open_pool("p", image="./disk.qcow2"):
            pass


async def test_each_is_handed_out_once_and_replaced() -> None:
    guests, names = Guests(), []
    async with simulated_pool("p", guests, warm_pool=3) as pool:
        await filled(pool, 3)
        for _ in range(10):
            async with pool.lease() as sandbox:
                assert (await sandbox.exec("cat", stdin=b"word")).stdout_bytes == b"word"
                names.append(await sandbox.name)
                assert figures(pool)[2] == 1
            with pytest.raises(SandboxNotRunningError):
                await sandbox.exec("true")
            assert figures(pool)[2] == 0
        await filled(pool, 3)
    assert names == [f"p-{number}" for number in range(1, 11)]
    assert len(guests.made) == 13
    assert guests.on == 0


async def test_leases_beyond_what_is_ready_wait_for_the_next() -> None:
    guests = Guests()
    async with simulated_pool("p", guests, warm_pool=2) as pool, trio.open_nursery() as nursery:
        names: set[str] = set()

        async def one() -> None:
            async with pool.lease() as sandbox:
                names.add(await sandbox.name)
                await trio.sleep(1)

        for _ in range(7):
            nursery.start_soon(one)
        await wait_all_tasks_blocked()
        assert len(names) == 7
        assert pool.statistics() == PoolStatistics(ready=2, starting=0, leased=7, waiting=0, failures=0)


async def test_an_error_in_the_block_leaves_it_bare_and_ends_the_sandbox() -> None:
    guests = Guests()
    async with simulated_pool("p", guests, warm_pool=1) as pool:
        with pytest.raises(KeyError):
            async with pool.lease():
                raise KeyError
        assert not guests.made[0].is_on


async def test_a_crash_of_a_leased_one_ends_its_block_and_no_other() -> None:
    guests = Guests()
    async with simulated_pool("p", guests, warm_pool=2) as pool:
        async with pool.lease() as other:
            with pytest.raises(SandboxCrashedError):
                async with pool.lease():
                    guests.made[1].kill_agent()
                    await trio.sleep_forever()
            assert (await other.exec("true")).success
        assert pool.statistics().failures == 0


async def test_one_that_was_stopped_leaves_its_block_alone() -> None:
    async with simulated_pool("p") as pool, pool.lease() as sandbox:
        await sandbox.stop()
        await trio.sleep(100)
        with pytest.raises(SandboxNotRunningError):
            await sandbox.exec("true")


# -- health and age


async def test_one_that_dies_while_it_is_idle_is_replaced() -> None:
    guests = Guests()
    async with simulated_pool("p", guests, warm_pool=2) as pool:
        await filled(pool, 2)
        guests.made[0].kill_agent()
        await trio.sleep(30)
        await filled(pool, 2)
        assert pool.statistics().failures == 1
        async with pool.lease() as sandbox:
            assert await sandbox.name == "p-2"
        async with pool.lease() as sandbox:
            assert await sandbox.name == "p-3"


async def test_one_that_hangs_is_found_out_when_it_is_handed_out() -> None:
    guests = Guests()
    async with simulated_pool("p", guests, warm_pool=2) as pool:
        await filled(pool, 2)
        guests.made[0].stall(1000)
        began = trio.current_time()
        async with pool.lease() as sandbox:
            assert await sandbox.name == "p-2"
            assert trio.current_time() - began <= HEALTH_TIMEOUT + 0.01
            assert pool.statistics().failures == 1
            await wait_all_tasks_blocked()
            assert not guests.made[0].is_on


async def test_the_clock_is_put_right_when_it_is_handed_out() -> None:
    guests = Guests()
    async with simulated_pool("p", guests, warm_pool=1) as pool:
        await filled(pool, 1)
        guests.made[0].set_clock(0)
        async with pool.lease() as sandbox:
            await sandbox.exec("true")
            assert abs(guests.made[0].time_ns() - time.time_ns()) < 60e9


async def test_one_that_nobody_takes_is_replaced_when_it_is_old() -> None:
    guests = Guests()
    async with simulated_pool("p", guests, warm_pool=2, max_age=100) as pool:
        await trio.sleep(99)
        assert len(guests.made) == 2
        async with pool.lease() as sandbox:
            await trio.sleep(500)
            assert await sandbox.name == "p-1", "a lease has no end of its own"
            assert (await sandbox.exec("true")).success
            assert guests.on == 3
        assert pool.statistics().failures == 0
        async with pool.lease() as sandbox:
            assert int((await sandbox.name).removeprefix("p-")) > 8


async def test_one_that_ends_by_itself_while_it_is_idle_is_replaced() -> None:
    guests = Guests()
    async with simulated_pool("p", guests, warm_pool=1, max_duration=50) as pool:
        await trio.sleep(60)
        await filled(pool, 1)
        assert len(guests.made) == 2


# -- starts that fail


async def test_starts_that_fail_are_tried_again_less_and_less_often() -> None:
    guests = Guests(broken=12)
    async with simulated_pool("p", guests, warm_pool=1) as pool:
        await trio.sleep(500)
        await filled(pool, 1)
        assert pool.statistics().failures == 12
    gaps = [round(later - earlier, 3) for earlier, later in pairwise(guests.tries)]
    assert gaps == [min(FIRST_BACK_OFF * 2**number, LONGEST_BACK_OFF) for number in range(12)]


async def test_whoever_waits_is_told_of_a_start_that_failed() -> None:
    guests = Guests(broken=1)
    async with simulated_pool("p", guests, warm_pool=1) as pool:
        errors = []

        async def one() -> None:
            with pytest.raises(BootError, match="try 1") as caught:
                await pool.lease().__aenter__()
            assert caught.value.stage == "kernel"
            errors.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
        assert errors[0] is not errors[1]
        async with pool.lease() as sandbox:
            assert await sandbox.name == "p-2"


async def test_nobody_is_told_while_another_one_is_on_its_way() -> None:
    async with simulated_pool("p", Guests(broken=1), warm_pool=2) as pool, pool.lease() as sandbox:
        assert await sandbox.name == "p-2"


# -- the end


async def test_drain_ends_what_is_idle_and_waits_for_leases() -> None:
    guests, drained = Guests(), 0.0
    async with simulated_pool("p", guests, warm_pool=2) as pool, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def lease() -> None:
            async with pool.lease():
                await trio.sleep(10)

        @nursery.start_soon
        async def drain() -> None:
            nonlocal drained
            await trio.sleep(1)
            await pool.drain()
            drained = trio.current_time()

        await trio.sleep(2)
        assert guests.on == 1
        assert figures(pool) == (0, 0, 1)
        with pytest.raises(PoolClosedError, match="'p'"):
            await pool.lease().__aenter__()
        began = trio.current_time() - 2
    assert drained == pytest.approx(began + 10, abs=0.01)
    await pool.drain()


async def test_drain_sends_away_those_who_wait() -> None:
    async with simulated_pool("p", Guests(broken=100), warm_pool=1) as pool, trio.open_nursery() as nursery:
        await trio.sleep(60)

        @nursery.start_soon
        async def wait() -> None:
            with pytest.raises(PoolClosedError):
                await pool.lease().__aenter__()

        await wait_all_tasks_blocked()
        assert pool.statistics().waiting == 1
        await pool.drain()


async def test_leaving_the_block_ends_the_leases_of_others_too() -> None:
    guests = Guests()
    async with trio.open_nursery() as nursery:
        async with simulated_pool("p", guests) as pool:

            async def use(*, task_status: trio.TaskStatus[Sandbox]) -> None:
                async with pool.lease() as sandbox:
                    task_status.started(sandbox)
                    await trio.sleep_forever()

            sandbox = await nursery.start(use)
        assert guests.on == 0
        with pytest.raises(SandboxNotRunningError):
            await sandbox.exec("true")
        with pytest.raises(PoolClosedError):
            await pool.lease().__aenter__()
        nursery.cancel_scope.cancel()


# -- cancellation


def living() -> tuple[int, int]:
    """Tasks of this run, and descriptors of this process."""
    return trio.lowlevel.current_statistics().tasks_living, len(os.listdir("/proc/self/fd"))


async def test_a_lease_cancelled_anywhere_leaves_the_pool_whole_and_no_sandbox_half_taken() -> None:
    guests = Guests()
    async with simulated_pool("p", guests, warm_pool=2) as pool:

        async def lease() -> None:
            async with pool.lease() as sandbox:
                await sandbox.exec("true")

        async def whole() -> None:
            await filled(pool, 2)
            assert guests.on == 2
            assert figures(pool) == (2, 0, 0)

        await whole()
        assert await cancelled_everywhere(lease, whole) > 5


async def test_a_lease_that_waits_cancelled_anywhere_takes_nothing() -> None:
    async def once(number: int) -> bool:
        guests = Guests()
        async with simulated_pool("p", guests, warm_pool=1) as pool:
            reached = await cancelled_at(number, lambda: use(pool))
            await filled(pool, 1)
            assert guests.on == 1
        return reached

    async def use(pool: Pool) -> None:
        async with pool.lease():
            pass

    number = 1
    while await once(number):
        number += 1
    assert number > 5


@pytest.mark.parametrize("body", ["idle", "leased", "waiting", "draining"])
async def test_a_pool_cancelled_anywhere_leaves_nothing(body: str) -> None:
    guests = Guests()

    async def idle(pool: Pool) -> None:
        await wait_all_tasks_blocked()

    async def leased(pool: Pool) -> None:
        async with pool.lease() as sandbox:
            await sandbox.exec("true")

    async def waiting(pool: Pool) -> None:
        async with pool.lease(), pool.lease(), pool.lease():
            pass

    async def draining(pool: Pool) -> None:
        async with trio.open_nursery() as nursery, pool.lease() as sandbox:
            nursery.start_soon(pool.drain)
            await sandbox.exec("true")

    bodies: dict[str, Callable[[Pool], Any]] = {
        "idle": idle,
        "leased": leased,
        "waiting": waiting,
        "draining": draining,
    }

    async def live() -> None:
        async with simulated_pool("p", guests, warm_pool=2) as pool:
            await bodies[body](pool)

    before = living()
    reached, step = True, 0
    while reached:
        step += 7 if step > 60 else 1
        reached = await cancelled_at(step, live, of_all_tasks=True)
        await wait_all_tasks_blocked()
        assert living() == before
        assert guests.on == 0
    assert step > 30
