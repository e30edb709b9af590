"""An agent and a client that send whatever they like: the first can end its own sandbox with RemoteProtocolError, the
second its own connection, and neither anything else.
"""

from __future__ import annotations

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_sandbox.errors import RemoteProtocolError
from trio_sandbox.relay.admission import Admission, Places
from trio_sandbox.relay.frames import FrameType, Role
from trio_sandbox.relay.messages import (
    Exec,
    Fs,
    Subscribe,
)
from trio_sandbox.relay.states import SideState
from trio_sandbox.testing.strategies import hostile_bytes

from .crowd import Client, World, settle, world

OPENED = (
    Exec((b"prog",), (), stdin=True),
    Exec((b"detached",), (), stdin=True, detached=True, window=1000),
    Fs("write", b"/x"),
    Subscribe(),
)
RULES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def busy_client(world: World) -> Client:
    """A client with a session of each kind, output on its way, and input."""
    client = await world.joined()
    for request in OPENED:
        client.open(request)
    await client.flush()
    await settle()
    for local in client.open_now():
        if client.mux.sendable(local):
            client.mux.send_data(FrameType.STDIN, local, bytes(100))
    await client.flush()
    await settle()
    return client


@given(chunks=st.lists(hostile_bytes(Role.GUEST), min_size=1, max_size=4), stalled=st.booleans(), leaves=st.booleans())
@RULES
def test_whatever_the_agent_says_is_answered_with_remote_protocol_error_or_nothing(
    chunks: list[bytes], stalled: bool, leaves: bool
) -> None:
    async def main() -> None:
        async with world() as w:
            client, _ = await busy_client(w), await busy_client(w)
            if stalled:
                client.stop_reading()
            client.consuming = False
            client.trusting = False
            w.clients[1].trusting = False
            if leaves:
                await w.clients[1].hang_up()
            for chunk in chunks:
                await w.agent.stream.send_all(chunk)
                await settle()
            client.reading.set()
            await settle()

    try:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    except RemoteProtocolError:
        pass
    except ExceptionGroup as group:
        if not isinstance(leaf(group), RemoteProtocolError):
            raise


@given(chunks=st.lists(hostile_bytes(Role.CLIENT), min_size=1, max_size=5), joins=st.booleans(), reads=st.booleans())
@RULES
def test_whatever_a_client_says_ends_its_own_connection_at_most(chunks: list[bytes], joins: bool, reads: bool) -> None:
    """The scripted agent refuses what the real one would: it raises, and so would this test."""

    async def main() -> None:
        async with world(Admission(clients=Places("clients", 4))) as w:
            other = await busy_client(w)
            hostile = await busy_client(w) if joins else w.connect()
            hostile.trusting = False
            if not reads:
                hostile.stop_reading()
            for chunk in chunks:
                try:
                    await hostile.stream.send_all(chunk)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    break
                await settle()
            assert w.link.mux.state is SideState.OPEN
            await works_still(w, other)
            hostile.reading.set()
            await hostile.hang_up()
            await settle()
            assert w.relay.admission.clients.used == 2
            newcomer = await w.joined()
            await works_still(w, newcomer)

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def works_still(world: World, client: Client) -> None:
    local = client.open(Exec((b"prog",), (), stdin=True))
    await client.flush()
    await settle()
    number = client.sessions[local].number
    world.agent.output(number, 5000)
    client.mux.send_data(FrameType.STDIN, local, b"in", end=True)
    await world.agent.flush()
    await client.flush()
    await settle()
    assert client.sessions[local].got == 5000
    assert world.agent.sessions[number].stdin == b"in"
