"""The watch over the agent, in virtual time: what counts as silence and what does not."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_sandbox.errors import SandboxNotRunningError
from trio_sandbox.relay.events import PingReceived
from trio_sandbox.relay.frames import FrameType, Role
from trio_sandbox.relay.link import AgentLink
from trio_sandbox.relay.liveness import PING_INTERVAL, PING_TIMEOUT, Liveness
from trio_sandbox.relay.messages import (
    Hello,
    Ready,
)
from trio_sandbox.relay.mux import Mux
from trio_sandbox.service import service

from .crowd import settle, world

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.fixture
def anyio_backend(clock: MockClock) -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": clock})


async def end_of_watch(watch: Liveness, patience: float) -> float | None:
    """Seconds until the agent was given up, None when it was not."""
    start = trio.current_time()
    with trio.move_on_after(patience):
        await watch.run()
        return trio.current_time() - start
    return None


async def test_an_agent_that_answers_is_watched_for_ever() -> None:
    async with world() as w:
        assert await end_of_watch(Liveness(w.link), 1000) is None
        assert w.link.pongs == pytest.approx(1000 / PING_INTERVAL, abs=2)


async def test_an_agent_that_hangs_is_given_up_after_two_pings() -> None:
    async with world() as w:
        w.agent.stop_reading()
        await settle()
        assert await end_of_watch(Liveness(w.link), 1000) == pytest.approx(2 * PING_TIMEOUT, abs=0.1)
        assert not w.link._pings


async def test_one_answer_that_is_late_is_forgiven() -> None:
    async with world() as w:
        w.agent.stop_reading()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wake_late() -> None:
                await trio.sleep(PING_TIMEOUT + 5)
                w.agent.reading.set()

            assert await end_of_watch(Liveness(w.link), 100) is None


async def one_deadline(watch: Liveness) -> bool:
    """How it would be done without a thought of the host."""
    with trio.move_on_after(watch.timeout):
        await watch.link.ping()
        return True
    return False


@pytest.mark.parametrize("naive", [False, True])
async def test_a_loop_that_was_blocked_is_not_mistaken_for_a_hung_agent(
    naive: bool, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline passes while the answer lies in the socket and nobody has had time to read it."""
    if naive:
        monkeypatch.setattr(Liveness, "_is_alive", one_deadline)
    near, far = socket.socketpair()
    link, guest = AgentLink(trio.SocketStream(trio.socket.from_stdlib_socket(near))), Mux(Role.GUEST)
    guest.send_message(Hello((1,), "scripted", "none"))
    guest.send_message(Ready({}))
    with far:
        far.sendall(guest.data_to_send())
        async with service(link.serve, name="link"), aclosing_stream(link):
            await link.machine_message(FrameType.READY)
            given_up = trio.Event()

            async def run() -> None:
                await Liveness(link).run()
                given_up.set()

            clock.autojump_threshold = float("inf")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                for _ in range(2):
                    await settle()
                    clock.jump(PING_TIMEOUT + 1)  # from here to the answer there is no checkpoint: the loop stands
                    answer(guest, far)
                    await settle()
                assert given_up.is_set() is naive
                nursery.cancel_scope.cancel()
            clock.autojump_threshold = 0


def answer(guest: Mux, far: socket.socket) -> None:
    """Answer the pings that have come, without a turn of the loop."""
    with suppress(BlockingIOError):
        for event in guest.receive_data_untrusted(far.recv(65_536, socket.MSG_DONTWAIT)):
            assert isinstance(event, PingReceived)
            guest.send_ping(FrameType.PONG, event.body)
    far.sendall(guest.data_to_send())


@asynccontextmanager
async def aclosing_stream(link: AgentLink) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await trio.aclose_forcefully(link._stream)


async def test_a_machine_that_stands_still_is_not_silent() -> None:
    async with world() as w:
        watch = Liveness(w.link)
        watch.suspend()
        w.agent.stop_reading()
        assert await end_of_watch(watch, 1000) is None
        w.agent.reading.set()
        watch.resume()
        assert await end_of_watch(watch, 1000) is None
        w.agent.stop_reading()
        assert await end_of_watch(watch, 1000) is not None


async def test_silence_that_began_before_a_suspension_does_not_count() -> None:
    async with world() as w:
        watch = Liveness(w.link)
        w.agent.stop_reading()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def pause() -> None:
                await trio.sleep(PING_TIMEOUT / 2)
                watch.suspend()
                await trio.sleep(10 * PING_TIMEOUT)
                w.agent.reading.set()
                watch.resume()

            assert await end_of_watch(watch, 200) is None


async def test_a_stream_that_closed_is_not_this_watchs_news_and_the_end_of_the_machine_is_raised() -> None:
    async with world() as w:
        await w.link.machine_message(FrameType.READY)
        watch = Liveness(w.link)
        w.link.fail(lambda: SandboxNotRunningError("x"))
        with pytest.raises(SandboxNotRunningError):
            await watch.run()
