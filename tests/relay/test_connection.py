"""One client's connection: control connections, last words, and what is refused before the agent would refuse it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_sandbox.errors import SandboxNotRunningError
from trio_sandbox.relay.admission import CLIENT_LIMIT
from trio_sandbox.relay.bridge import MAX_DEADLINE_MS
from trio_sandbox.relay.client_messages import (
    Ended,
    Join,
    Request,
)
from trio_sandbox.relay.connection import JOIN_TIMEOUT, LAST_WORDS_TIMEOUT, PINGS_LIMIT
from trio_sandbox.relay.frames import MAX_BODY, FrameType
from trio_sandbox.relay.messages import (
    Deadline,
    Exec,
    Message,
    Resize,
    Signal,
)
from trio_sandbox.relay.states import SideState

from .crowd import Client, World, settle, world

pytestmark = pytest.mark.anyio
REQUEST = Exec((b"prog",), (), stdin=True)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


async def ask(world: World, op: str) -> Client:
    client = world.connect()
    client.mux.send_message(Join((1,), True, 0))
    await client.flush()
    await settle()
    if op and client.welcome is not None:
        client.mux.send_message(Request(op))
        await client.flush()
        await settle()
    return client


async def test_control_connections_take_no_channel_and_four_are_served_at_once() -> None:
    async with world() as w:
        for _ in range(CLIENT_LIMIT - 1):
            await w.joined()
        asked = await ask(w, "status")
        assert asked.answer is not None and asked.answer.state == "status"
        silent = [await ask(w, "") for _ in range(4)]
        fifth = await ask(w, "stop")
        assert fifth.busy is not None and (fifth.busy.what, fifth.busy.limit) == ("controls", 4)
        await trio.sleep(JOIN_TIMEOUT + 1)
        assert all(client.closed.is_set() for client in silent), "one that asks nothing keeps its place"
        assert (await ask(w, "stop")).answer is not None


async def test_the_end_reaches_everyone_whatever_the_console_says() -> None:
    async with world() as w:
        client = await w.joined()
        control = await ask(w, "")
        w.relay.end(Ended("crashed", "vmm-exited", 1, "\ufffd" * 32_768))
        await settle()
        assert client.mux.state is SideState.CLOSED
        control.mux.send_message(Request("stop"))
        await control.flush()
        await settle()
        assert control.answer is not None


async def test_an_environment_too_large_for_a_frame_costs_the_connection_alone() -> None:
    async with world() as w:
        small, w.facts.env = w.facts.env, {"A": "x" * MAX_BODY}
        client = w.connect()
        await client.join()
        await client.closed.wait()
        w.facts.env = small
        welcome = (await w.joined()).welcome
        assert welcome is not None and welcome.logs == "/logs"


async def test_pings_are_not_answered_for_a_machine_that_is_gone() -> None:
    async with world() as w:
        client = await w.joined()
        w.agent.stop_reading()
        client.mux.send_ping(FrameType.PING, b"x")
        await client.flush()
        await settle()
        w.link.fail(lambda: SandboxNotRunningError("box"))
        await settle()
        assert client.pongs == 0


async def started(world: World) -> tuple[Client, int]:
    client = await world.joined()
    local = client.open(REQUEST)
    await client.flush()
    await settle()
    return client, local


@pytest.mark.parametrize(
    "message",
    [
        Signal(0),
        Signal(65),
        Signal(-1),
        Resize(0, 80),
        Resize(24, 1 << 16),
        Resize(-1, -1),
        Deadline(-1),
        Deadline(MAX_DEADLINE_MS + 1),
        None,
    ],
    ids=str,
)
async def test_what_the_agent_would_refuse_ends_the_clients_connection_instead(message: Message | None) -> None:
    async with world() as w:
        client, local = await started(w)
        if message is None:
            client.mux.send_empty(FrameType.DETACH, local)
        else:
            client.mux.send_message(message, local)
        await client.flush()
        await client.closed.wait()
        await settle()
        assert w.agent.sessions[1].killed and w.link.mux.state is SideState.OPEN


@pytest.mark.parametrize("message", [Signal(64), Resize(1, 65_535), Deadline(0), Deadline(MAX_DEADLINE_MS)], ids=str)
async def test_what_the_agent_takes_goes_through(message: Message) -> None:
    async with world() as w:
        client, local = await started(w)
        client.mux.send_message(message, local)
        await client.flush()
        await settle()
        assert not client.closed.is_set() and not w.agent.sessions[1].over


@pytest.mark.parametrize("count", [PINGS_LIMIT, PINGS_LIMIT + 1])
async def test_pings_that_nobody_answers_are_limited(count: int) -> None:
    async with world() as w:
        client = await w.joined()
        w.agent.stop_reading()
        for _ in range(count):
            client.mux.send_ping(FrameType.PING, b"")
        await client.flush()
        await settle()
        assert client.closed.is_set() is (count > PINGS_LIMIT)


async def test_what_was_being_written_when_the_connection_ended_is_written_to_its_end() -> None:
    async with world() as w:
        client, local = await started(w)
        client.stop_reading()
        for _ in range(2):  # the first is what the client takes and does not look at, the second is under way
            w.agent.output(1, 1000)
            await w.agent.flush()
            await settle()
        await client.stream.send_all(b"\xff" * 16)
        await trio.sleep(LAST_WORDS_TIMEOUT / 2)
        client.reading.set()
        await client.closed.wait()
        assert client.sessions[local].got == 2000


async def test_last_words_wait_for_nobody_for_long() -> None:
    async with world() as w:
        client, _ = await started(w)
        client.stop_reading()
        for _ in range(2):
            w.agent.output(1, 1000)
            await w.agent.flush()
            await settle()
        await client.stream.send_all(b"\xff" * 16)
        await trio.sleep(LAST_WORDS_TIMEOUT * 1.1)
        assert w.relay.admission.clients.used == 1


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with world() as w:
        silent = w.connect()
        await trio.sleep(JOIN_TIMEOUT * 1.1)
        assert silent.closed.is_set()
