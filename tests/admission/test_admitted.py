"""Waiting for room: order, deadlines, urgency and cancellation, in virtual time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise

import pytest
import trio

from tests.cancelling import cancelled_everywhere
from trio_sandbox.admission.admitted import LONGEST_PAUSE, PAUSE, TURN_PATIENCE, Share, Urgency, admitted
from trio_sandbox.admission.queue import Usage
from trio_sandbox.admission.register import RECORDS, REGISTER_FILE, Register
from trio_sandbox.errors import HostLimitError, InvalidConfigError
from trio_sandbox.home import Home

from .conftest import set_limits

pytestmark = pytest.mark.anyio


def used(home: Home) -> Usage:
    with Register.opened(home) as register:
        return Usage.of(register.others())


def waiting(home: Home) -> int:
    with Register.opened(home) as register:
        return len(register.others()) - used(home).sandboxes


@asynccontextmanager
async def room(home: Home, memory: int = 100, timeout: float = 60) -> AsyncIterator[Share]:
    """Admitted, and ready."""
    async with admitted(home, memory, timeout=timeout) as share:
        share.booted()
        yield share


async def test_what_is_had_and_when_it_is_given_back(home: Home) -> None:
    async with admitted(home, 300, timeout=0) as share:
        assert used(home) == Usage(300, 1, 1)
        share.booted()
        assert used(home) == Usage(300, 0, 1)
        async with admitted(home, 700, timeout=0):
            assert used(home) == Usage(1000, 1, 2)
        assert used(home) == Usage(300, 0, 1)
    assert used(home) == Usage()


@pytest.mark.parametrize(
    ("holders", "memory", "resource", "limit", "usage"),
    [(1, 950, "memory", 1000, 100), (3, 1, "sandboxes", 3, 3)],
)
async def test_the_deadline(home: Home, holders: int, memory: int, resource: str, limit: int, usage: int) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(holders):
            await stack.enter_async_context(room(home))
        began = trio.current_time()
        with pytest.raises(HostLimitError, match=f"{usage} of {limit} ") as caught:
            async with admitted(home, memory, timeout=30):
                raise AssertionError
        assert trio.current_time() - began == pytest.approx(30, abs=0.001)
        error = caught.value
        assert (error.resource, error.limit, error.usage, error.ahead) == (resource, limit, usage, 0)
        assert error.waited == pytest.approx(30, abs=0.001)
        assert waiting(home) == 0


async def test_boots_in_flight(home: Home) -> None:
    async with admitted(home, 1, timeout=0) as first, admitted(home, 1, timeout=0):
        with pytest.raises(HostLimitError, match="2 of 2 boots are in use"):
            await admitted(home, 1, timeout=0).__aenter__()
        first.booted()
        async with admitted(home, 1, timeout=0):
            pass


async def test_without_a_timeout_nothing_is_waited_for(home: Home) -> None:
    async with room(home, 1000):
        began = trio.current_time()
        with pytest.raises(HostLimitError):
            await admitted(home, 1, timeout=0).__aenter__()
        assert trio.current_time() == began


async def test_what_can_never_fit_is_refused_at_once(home: Home) -> None:
    with pytest.raises(HostLimitError, match="needs 1001 MiB of memory, and all together may have 1000") as caught:
        await admitted(home, 1001, timeout=60).__aenter__()
    assert (caught.value.waited, caught.value.needed) == (0, 1001)


async def test_faulty_limits_are_refused(home: Home) -> None:
    (home.root / "limits.toml").write_text("boots = 0")
    with pytest.raises(InvalidConfigError, match="boots"):
        await admitted(home, 1, timeout=60).__aenter__()


async def test_first_come_first_served_and_a_large_one_is_not_starved(home: Home) -> None:
    set_limits(home, memory=1000, boots=9, sandboxes=99)
    order: list[int] = []

    async def one(number: int, memory: int) -> None:
        async with room(home, memory):
            order.append(number)
            await trio.sleep(3)

    async with trio.open_nursery() as nursery:
        for number, memory in enumerate([600, 900, *[100] * 8]):
            nursery.start_soon(one, number, memory)
            await trio.sleep(0.1)
        await trio.sleep(1)
        assert order == [0], "the small ones would fit beside the first"
    assert order == list(range(10))


async def test_a_free_place_is_taken_soon_however_long_the_line(home: Home) -> None:
    set_limits(home, memory=1000, boots=9, sandboxes=1)
    taken: list[float] = []

    async def one() -> None:
        async with room(home, 1, timeout=600):
            taken.append(trio.current_time())
            await trio.sleep(0.2)

    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(one)
    gaps = [later - earlier - 0.2 for earlier, later in pairwise(taken)]
    assert max(gaps) <= LONGEST_PAUSE
    assert sum(gaps) / len(gaps) <= 3 * PAUSE


async def test_one_that_gave_up_is_not_waited_for(home: Home) -> None:
    async with room(home, 500), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def large() -> None:
            with pytest.raises(HostLimitError):
                await admitted(home, 900, timeout=5).__aenter__()

        await trio.sleep(1)
        began = trio.current_time()
        async with admitted(home, 100, timeout=60):
            assert trio.current_time() - began == pytest.approx(4, abs=3 * PAUSE)


async def test_the_error_tells_of_those_ahead(home: Home) -> None:
    async with room(home, 500), trio.open_nursery() as nursery:
        nursery.start_soon(admitted(home, 900, timeout=60).__aenter__)
        await trio.sleep(1)
        with pytest.raises(HostLimitError, match="with 1 requests before this one") as caught:
            await admitted(home, 10, timeout=5).__aenter__()
        assert (caught.value.resource, caught.value.ahead, caught.value.needed) == ("memory", 1, 10)
        nursery.cancel_scope.cancel()


# -- urgency


async def test_the_background_waits_without_a_deadline_until_it_is_hurried(home: Home) -> None:
    urgency = Urgency(background=True)
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for _ in range(3):
            await stack.enter_async_context(room(home))

        @nursery.start_soon
        async def ahead_of_time() -> None:
            with pytest.raises(HostLimitError) as caught:
                await admitted(home, 1, timeout=10, urgency=urgency).__aenter__()
            assert caught.value.waited == pytest.approx(10, abs=0.001)
            assert trio.current_time() - began == pytest.approx(10, abs=0.001)

        await trio.sleep(100)
        assert waiting(home) == 1
        began = trio.current_time()
        urgency.hurry()


async def test_one_that_is_hurried_has_waited_for_nothing(home: Home) -> None:
    """Those that waited before it still are."""
    urgency = Urgency(background=True)
    order: list[str] = []

    async def one(name: str, urgency: Urgency | None = None) -> None:
        async with admitted(home, 1000, timeout=60, urgency=urgency) as share:
            order.append(name)
            share.booted()
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for name, given in (("first", None), ("hurried", urgency), ("second", None)):
            nursery.start_soon(one, name, given)
            await trio.sleep(0.1)
        urgency.hurry()
        await trio.sleep(0.1)
        nursery.start_soon(one, "third")
    assert order == ["first", "second", "hurried", "third"]


async def test_what_is_taken_over_is_no_background_any_more(home: Home) -> None:
    set_limits(home, memory=1000, boots=4, sandboxes=2)
    urgency = Urgency(background=True)
    async with admitted(home, 1, timeout=0, urgency=urgency):
        with trio.move_on_after(100):
            await admitted(home, 1, timeout=0, urgency=Urgency(background=True)).__aenter__()
            raise AssertionError("half of two is taken")
        urgency.hurry()
        async with admitted(home, 1, timeout=0, urgency=Urgency(background=True)):
            pass


# -- faults


async def test_cancelled_anywhere_nothing_is_had(home: Home) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))

    async def live() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                await nursery.start(hold)
            async with room(home, 1):
                await trio.lowlevel.checkpoint()

    async def hold(*, task_status: trio.TaskStatus[None]) -> None:
        async with room(home):
            task_status.started()
            await trio.sleep(0.5)

    async def nothing() -> None:
        assert (used(home), waiting(home)) == (Usage(), 0)
        assert len(os.listdir("/proc/self/fd")) == descriptors

    assert await cancelled_everywhere(live, nothing) > 10


async def test_somebody_who_never_ends_its_turn_is_waited_for_until_the_deadline(home: Home) -> None:
    with Register.opened(home) as stuck, stuck.turn() as held:
        assert held
        for timeout in (0, 5):
            began = trio.current_time()
            with pytest.raises(HostLimitError):
                await admitted(home, 1, timeout=timeout).__aenter__()
            assert trio.current_time() - began == pytest.approx(max(timeout, TURN_PATIENCE), abs=0.01)


@pytest.mark.parametrize("content", [b"", b"\xff" * 32 * RECORDS, os.urandom(10_000), b"\x01" * 100_001])
async def test_a_damaged_register_harms_nobody(home: Home, content: bytes) -> None:
    (home.run / REGISTER_FILE).write_bytes(content)
    async with room(home, 600), room(home, 400):
        assert used(home) == Usage(1000, 0, 2)
        with pytest.raises(HostLimitError):
            await admitted(home, 1, timeout=0).__aenter__()


async def test_a_full_register_is_waited_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_sandbox.admission.register.RECORDS", 1)
    set_limits(home, memory=100)
    async with room(home):
        with pytest.raises(HostLimitError):
            await admitted(home, 1, timeout=1).__aenter__()
    async with room(home):
        pass
