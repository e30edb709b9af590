"""Places: as many as there are, in the order in which they were asked for, and a turn that is given up is nobody's."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_sandbox.errors import ClientLimitError
from trio_sandbox.relay.admission import Places

from .crowd import settle, world

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


async def test_places_are_numbered_and_limited() -> None:
    places = Places("clients", 2)
    assert sorted([places.acquire_nowait(), await places.acquire()]) == [1, 2]
    with pytest.raises(ClientLimitError) as caught:
        places.acquire_nowait()
    assert (caught.value.what, caught.value.limit, caught.value.used) == ("clients", 2, 2)
    places.release(1)
    assert places.used == 1
    assert places.acquire_nowait() == 1


async def test_waiters_get_places_in_turn_and_nobody_overtakes() -> None:
    places = Places("clients", 1)
    place = places.acquire_nowait()
    order: list[str] = []

    async def wait(name: str) -> None:
        number = await places.acquire(100)
        order.append(name)
        await trio.sleep(1)
        places.release(number)

    async with trio.open_nursery() as nursery:
        for name in ("a", "b", "c"):
            nursery.start_soon(wait, name)
            await settle()
        places.release(place)
        assert places.used == 1, "the first waiter has it, though he has not woken yet"
        with pytest.raises(ClientLimitError):
            places.acquire_nowait()
    assert order == ["a", "b", "c"]
    assert places.used == 0


async def test_a_cancelled_waiter_and_one_out_of_patience_take_nothing() -> None:
    places = Places("clients", 1)
    place = places.acquire_nowait()
    with trio.move_on_after(5):
        await places.acquire(100)
    start = trio.current_time()
    with pytest.raises(ClientLimitError):
        await places.acquire(7)
    assert trio.current_time() - start == pytest.approx(7)
    places.release(place)
    assert places.used == 0
    assert places.acquire_nowait() == 1


async def test_a_place_that_comes_with_the_cancellation_is_not_lost() -> None:
    """Whichever wins in that step, the place is either taken or free."""
    places = Places("clients", 1)
    place = places.acquire_nowait()
    got: list[int] = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            got.append(await places.acquire(100))

        await settle()
        places.release(place)
        nursery.cancel_scope.cancel()
    assert places.used == len(got)


async def test_a_client_that_hangs_up_while_it_waits_loses_its_turn() -> None:
    async with world() as w:
        clients = [await w.joined() for _ in range(15)]
        first, second = w.connect(), w.connect()
        for client in (first, second):
            await client.join(wait_ms=60_000)
            await settle()
        await first.hang_up()
        await settle()
        await clients[3].hang_up()
        await settle()
        assert second.welcome is not None and first.welcome is None
        assert w.relay.admission.clients.used == 16


async def test_a_client_that_speaks_while_it_waits_is_turned_away() -> None:
    async with world() as w:
        clients = [await w.joined() for _ in range(15)]
        eager = w.connect()
        await eager.join(wait_ms=60_000)
        await eager.stream.send_all(bytes(16))
        await eager.closed.wait()
        await clients[0].hang_up()
        await settle()
        assert eager.welcome is None and w.relay.admission.clients.used == 15


async def test_a_wait_ends_at_its_deadline_with_the_limit_named() -> None:
    async with world() as w:
        for _ in range(15):
            await w.joined()
        late = w.connect()
        start = trio.current_time()
        await late.join(wait_ms=3000)
        await late.closed.wait()
        assert late.busy is not None and late.busy.used == 16
        assert trio.current_time() - start == pytest.approx(3, abs=0.1)
