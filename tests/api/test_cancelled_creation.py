"""A creation that is cancelled, at whatever place, leaves nothing: no process, row, folder, socket or descriptor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.cancel_at import cancelled_at, task_cancelled_at
from trio_sandbox import ImageNotFoundError, Sandbox, SandboxNotFoundError

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]
Cancelled = Callable[[int, Callable[[], Awaitable[Any]]], Awaitable[bool]]


async def create() -> None:
    async with await Sandbox.create("cancelled", image="local/base"):
        pass


async def nothing_is_known() -> None:
    """At once: whoever was cancelled has waited for it."""
    assert await Sandbox.list() == []
    with pytest.raises(SandboxNotFoundError):
        await Sandbox.get("cancelled")


async def cancel_everywhere(cancelled: Cancelled, places: range) -> int:
    """How many of these places there were."""
    tried = 0
    for number in places:
        if await cancelled(number, create):
            tried += 1
        await nothing_is_known()
    return tried


async def test_at_the_first_places() -> None:
    assert await cancel_everywhere(cancelled_at, range(12)) > 6


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_by_the_means_of_asyncio() -> None:
    assert await cancel_everywhere(task_cancelled_at, range(15)) > 6


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_by_asyncio_while_the_process_is_forked_and_while_it_boots() -> None:
    for seconds in (0.0, 0.001, 0.005, 0.02, 0.05):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await Sandbox.create("cancelled", image="local/base", warm=False)
        await nothing_is_known()


@pytest.mark.soak
async def test_at_every_place_again_and_again() -> None:
    tried = 0
    while tried < 100:
        tried += await cancel_everywhere(cancelled_at, range(20))


async def test_a_start_that_is_cancelled_changes_nothing() -> None:
    sb = await Sandbox.create("stays", image="local/base")
    await sb.shell("echo kept > /root/note")
    await sb.stop()

    async def start() -> None:
        async with await Sandbox.start("stays", detached=True):
            raise AssertionError("not reached")

    for number in (1, 2, 3):
        assert await cancelled_at(number, start)
        handle = await Sandbox.get("stays")
        assert handle.status == "stopped"
        assert (await handle.runs())[0].reason == "requested"
    again = await Sandbox.start("stays")
    assert (await again.shell("cat /root/note")).stdout_text == "kept\n"
    async with again:
        pass


async def test_a_session_that_is_left_without_its_result_leaves_nothing() -> None:
    session = Sandbox.create_with_progress("left", image="local/base")
    async with session:
        async for event in session.progress:
            assert event.event_type == "resolving"
            break
    assert await Sandbox.list() == []
    for call in (session.result, session.progress.__anext__, session.__aenter__):
        with pytest.raises(RuntimeError):
            await call()


async def test_a_session_that_is_ready_and_left_leaves_nothing() -> None:
    async with Sandbox.create_with_progress("left", image="local/base") as session:
        assert [event.event_type async for event in session.progress][-1] == "complete"
        assert [event async for event in session.progress] == []
    assert await Sandbox.list() == []


async def test_an_error_of_the_block_leaves_a_session_bare() -> None:
    with pytest.raises(KeyError):
        async with Sandbox.create_with_progress("left", image="local/base"):
            raise KeyError("mine")
    assert await Sandbox.list() == []


async def test_a_result_is_taken_once() -> None:
    async with Sandbox.create_with_progress("taken", image="local/base") as session:
        sb = await session.result()
        with pytest.raises(RuntimeError, match="taken already"):
            await session.result()
    async with sb:
        assert (await sb.exec("true")).success


async def test_an_image_that_is_not_there() -> None:
    session = Sandbox.create_with_progress("missing", image="local/no-such-image")
    with pytest.raises(ImageNotFoundError) as caught:
        async with session:
            events = [event.event_type async for event in session.progress]
            raise AssertionError(events)
    assert caught.value.reference == "local/no-such-image"
    assert await Sandbox.list() == []


async def test_errors_of_leaving_a_block_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    from trio_sandbox.client import remote

    def refused(*args: object, **named: object) -> None:
        raise OSError("the disk refused")

    with monkeypatch.context() as patch:
        patch.setattr(remote, "forget", refused)
        with pytest.raises(OSError, match="the disk refused"):
            async with await Sandbox.create("unremoved", image="local/base"):
                pass
