"""What readers that stop can make the relay hold, and that they hold up nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from trio_sandbox.relay import connection as connection_module
from trio_sandbox.relay import link as link_module
from trio_sandbox.relay.admission import CLIENT_LIMIT
from trio_sandbox.relay.budget import CLIENT_BYTES, CLIENT_SESSIONS
from trio_sandbox.relay.client_messages import (
    Attach,
)
from trio_sandbox.relay.connection import PINGS_LIMIT
from trio_sandbox.relay.credit import WINDOW
from trio_sandbox.relay.frames import MAX_BODY, FrameType
from trio_sandbox.relay.link import CONTROL_LIMIT
from trio_sandbox.relay.messages import (
    Emit,
    Exec,
    Failed,
    Signal,
)
from trio_sandbox.relay.survivors import REPLAY_BYTES

from .crowd import Client, World, settle, world

pytestmark = pytest.mark.anyio
REQUEST = Exec((b"prog",), (), stdin=True)
READER = Exec((b"prog",), ())
READ = 65_536
"""What the transport of these tests reads at once."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


def held(world: World) -> int:
    """Bytes of output that the relay holds for its clients: waiting in the bridges, and queued for their sockets."""
    total = 0
    for connection in world.relay._connections:
        outgoing = connection.mux._outgoing
        total += sum(len(raw) for raw in outgoing._control)
        total += sum(len(body) for queue in outgoing._bulk.values() for _, body in queue)
        for bridge in connection._bridges.values():
            total += sum(len(getattr(event, "data", b"")) for event in bridge._waiting)
    return total


async def pour(world: World, numbers: list[int]) -> None:
    """Have the agent send all that it may for these sessions, until it may send no more."""
    while sum(world.agent.output(number, WINDOW) for number in numbers):
        await world.agent.flush()
        await settle()


async def open_sessions(world: World, client: Client, count: int, request: Exec = REQUEST) -> list[int]:
    sessions = [client.open(request) for _ in range(count)]
    await client.flush()
    await settle()
    return [client.sessions[local].number for local in sessions]


@pytest.fixture
def bounded_windows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the budget bounds windows; without, the test must see the difference."""
    if not request.param:
        monkeypatch.setattr("trio_sandbox.relay.budget.WindowBudget._take", lambda _, wish: wish)
    return bool(request.param)


@pytest.mark.parametrize("bounded_windows", [True, False], indirect=True, ids=["budget", "no-budget"])
async def test_all_clients_stop_reading_and_the_relay_holds_no_more_than_their_windows(bounded_windows: bool) -> None:
    stalled = CLIENT_LIMIT - 2  # one channel is the relay's own, one client goes on
    async with world() as w:
        clients = [await w.joined() for _ in range(stalled)]
        lively = await w.joined()
        (moving,) = await open_sessions(w, lively, 1)
        numbers: list[int] = []
        for client in clients:
            numbers += await open_sessions(w, client, 24, READER)
            client.consuming = False
            client.stop_reading()
        await pour(w, numbers)
        most, spare = stalled * CLIENT_BYTES, stalled * (CONTROL_LIMIT + 2 * MAX_BODY)
        assert held(w) > most // 2, "the test must fill what it measures"
        assert (held(w) <= most + spare) is bounded_windows
        before = lively.sessions[1].got
        for _ in range(20):
            w.agent.output(moving, WINDOW)
            await w.agent.flush()
            await settle()
        assert lively.sessions[1].got - before == 20 * WINDOW


async def test_a_client_gets_as_many_sessions_as_the_limit_and_a_word_for_the_next() -> None:
    async with world() as w:
        client = await w.joined()
        await open_sessions(w, client, CLIENT_SESSIONS + 1)
        assert sum(session.started for session in client.sessions.values()) == CLIENT_SESSIONS
        refused = client.sessions[CLIENT_SESSIONS + 1].end
        assert isinstance(refused, Failed) and refused.kind == "too_many_sessions"


async def test_replays_that_are_not_consumed_count_as_sessions() -> None:
    """Attaching to what ended costs no window: without the limit, each would hold a replay for ever."""
    async with world() as w:
        client = await w.joined()
        client.consuming = False
        for _ in range(CLIENT_SESSIONS + 5):
            local = client.open(Exec((b"x",), (), detached=True, window=1))
            await client.flush()
            await settle()
            if not (number := client.sessions[local].number):
                break
            client.mux.send_empty(FrameType.DETACH, local)
            await client.flush()
            await settle()
            for _ in range(20):
                w.agent.output(number, 1)
                await w.agent.flush()
                await settle()
            w.agent.end(number)
            await w.agent.flush()
            await settle()
            client.open(Attach(number), 0)
            await client.flush()
            await settle()
        (connection,) = w.relay._connections
        assert len(connection._bridges) == CLIENT_SESSIONS
        assert held(w) <= CLIENT_SESSIONS * REPLAY_BYTES


@pytest.mark.parametrize("limited", [True, False], ids=["limit", "no-limit"])
async def test_a_client_that_floods_and_does_not_read_is_not_read_from(
    limited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not limited:
        monkeypatch.setattr(connection_module, "CONTROL_LIMIT", 1 << 40)
    async with world() as w:
        client, other = await w.joined(), await w.joined()
        (moving,) = await open_sessions(w, other, 1)
        client.stop_reading()
        connection = w.connection(client)
        for _ in range(40):
            for _ in range(400):
                client.open(Attach(1 << 20))  # each is answered with FAILED
            for _ in range(PINGS_LIMIT // 8):
                client.mux.send_ping(FrameType.PING, bytes(64))
            await client.flush()
            await settle()
        assert (connection.mux.control_size <= CONTROL_LIMIT + 8 * READ) is limited
        w.agent.output(moving, WINDOW)
        await w.agent.flush()
        await settle()
        assert other.sessions[1].got == WINDOW


@pytest.mark.parametrize("limited", [True, False], ids=["limit", "no-limit"])
async def test_an_agent_that_does_not_read_stops_clients_with_bounded_memory(
    limited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not limited:
        monkeypatch.setattr(link_module, "CONTROL_LIMIT", 1 << 40)
    async with world() as w:
        clients = [await w.joined() for _ in range(4)]
        for client in clients:
            await open_sessions(w, client, 2)
        w.agent.stop_reading()
        for _ in range(30):
            for client in clients:
                for _ in range(1000):
                    client.mux.send_message(Signal(10), 1)
                client.open(Emit("x", bytes(60_000)))
                client.mux.send_data(FrameType.STDIN, 2, bytes(min(5000, client.mux.sendable(2))))
                await client.flush()
            await settle()
        size = w.link.mux.control_size
        assert (size <= CONTROL_LIMIT + len(clients) * (2 * READ + MAX_BODY)) is limited
        bulk = sum(len(body) for queue in w.link.mux._outgoing._bulk.values() for _, body in queue)
        assert bulk <= len(clients) * 2 * WINDOW
        w.agent.reading.set()
        await settle()
        assert w.link.mux.control_size == 0
        assert [len(w.agent.sessions[number].stdin) for number in (2, 4, 6, 8)] == [30 * 5000] * 4


async def test_output_byte_by_byte_costs_a_stalled_client_no_more_than_its_bytes() -> None:
    """Each piece costs a hundred bytes of bookkeeping; they are joined while they wait."""
    async with world() as w:
        client = await w.joined()
        (number,) = await open_sessions(w, client, 1)
        client.consuming = False
        client.stop_reading()
        for _ in range(200):
            for _ in range(50):
                w.agent.output(number, 1)
                (raw,) = w.agent.mux.frames_to_send()
                await w.agent.stream.send_all(raw)
        await settle()
        outgoing = w.connection(client).mux._outgoing
        assert sum(len(queue) for queue in outgoing._bulk.values()) <= 10_000 // 4096 + 2


async def test_more_clients_than_places_are_told_so() -> None:
    async with world() as w:
        clients = [await w.joined() for _ in range(CLIENT_LIMIT - 1)]
        late = w.connect()
        await late.join()
        await late.closed.wait()
        assert late.busy is not None
        assert (late.busy.what, late.busy.limit, late.busy.used) == ("clients", CLIENT_LIMIT, CLIENT_LIMIT)
        await clients[0].hang_up()
        await settle()
        again = await w.joined()
        assert again.welcome is not None and again.welcome.slot == clients[0].welcome.slot  # type: ignore[union-attr]
