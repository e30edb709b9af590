"""Sessions that outlive their clients: what is replayed, what is forgotten, and what is lost with whom."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_sandbox.relay.client_messages import (
    Attach,
    Detached,
)
from trio_sandbox.relay.events import JOINED_SIZE
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Exec,
    Exited,
    Failed,
)
from trio_sandbox.relay.survivors import ENDED_LIMIT, REPLAY_BYTES, RecentOutput

from .crowd import Client, World, settle, world

pytestmark = pytest.mark.anyio
DETACHED = Exec((b"prog",), (), stdin=True, detached=True)
DETACHABLE = Exec((b"prog",), (), stdin=True, detachable=True)
KINDS = st.sampled_from((FrameType.STDOUT, FrameType.STDERR))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@given(st.lists(st.tuples(KINDS, st.sampled_from((0, 1, 7, 4096, 30_000, 65_536, 65_537, 200_000))), max_size=20))
def test_recent_output_is_the_newest_of_what_came(pieces: list[tuple[FrameType, int]]) -> None:
    recent = RecentOutput()
    whole = bytearray()
    kinds: list[FrameType] = []
    for number, (kind, size) in enumerate(pieces):
        data = (bytes([number + 1]) * size)[:size]
        recent.add(kind, data)
        whole += data
        kinds += [kind] * size
        kept = b"".join(event.data for event in recent.events())
        assert kept == whole[-REPLAY_BYTES:]
        assert [kind for event in recent.events() for kind in [event.type] * len(event.data)] == kinds[-REPLAY_BYTES:]


def test_recent_output_that_came_byte_by_byte_is_kept_in_few_pieces() -> None:
    recent = RecentOutput()
    for _ in range(2 * REPLAY_BYTES):
        recent.add(FrameType.STDOUT, b"x")
    assert len(recent.events()) <= REPLAY_BYTES // JOINED_SIZE + 2


async def start(world: World, client: Client, request: Exec) -> tuple[int, int]:
    local = client.open(request)
    await client.flush()
    await settle()
    return local, client.sessions[local].number


async def say(client: Client, kind: FrameType, local: int) -> None:
    client.mux.send_empty(kind, local)
    await client.flush()
    await settle()


async def attach(client: Client, number: int, start: int = 0, **options: Any) -> int:
    local = client.open(Attach(number, **options), start)
    await client.flush()
    await settle()
    return local


async def output(world: World, number: int, size: int) -> None:
    while size:
        size -= world.agent.output(number, min(size, 50_000))
        await world.agent.flush()
        await settle()


async def end(world: World, number: int) -> None:
    world.agent.end(number)
    await world.agent.flush()
    await settle()


async def test_what_was_kept_is_replayed_and_what_comes_follows() -> None:
    async with world() as w:
        first, second = await w.joined(), await w.joined()
        _, number = await start(w, first, DETACHED)
        await output(w, number, 1000)
        await first.hang_up()
        await settle()
        await output(w, number, 300_000)
        local = await attach(second, number, w.replay_start(number, replay=True))
        await output(w, number, 300_000)
        await end(w, number)
        session = second.sessions[local]
        assert session.start + session.got == 601_000 and session.got == REPLAY_BYTES + 300_000
        assert isinstance(session.end, Exited)
        assert w.relay.survivors.infos == ()


async def test_one_that_was_never_detached_from_dies_with_its_client() -> None:
    async with world() as w:
        client = await w.joined()
        _, number = await start(w, client, DETACHABLE)
        local, kept = await start(w, client, DETACHABLE)
        await say(client, FrameType.DETACH, local)
        assert isinstance(client.sessions[local].end, Detached)
        await client.hang_up()
        await settle()
        assert w.agent.sessions[number].killed and not w.agent.sessions[kept].over
        assert [info.id for info in w.relay.survivors.infos] == [kept]


async def test_one_client_at_a_time_and_a_word_for_the_next() -> None:
    async with world() as w:
        first, second = await w.joined(), await w.joined()
        _, number = await start(w, first, DETACHED)
        refused = [second.sessions[await attach(second, target)].end for target in (number, 999)]
        assert [answer.kind for answer in refused if isinstance(answer, Failed)] == ["session_busy", "no_such_session"]


async def test_an_end_that_nobody_saw_is_kept_and_one_that_was_seen_is_not() -> None:
    async with world() as w:
        client = await w.joined()
        local, number = await start(w, client, DETACHED)
        await say(client, FrameType.DETACH, local)
        await end(w, number)
        again = await attach(client, number, rows=24, cols=80)
        assert isinstance(client.sessions[again].end, Exited)
        assert isinstance(client.sessions[await attach(client, number)].end, Failed)


async def test_an_end_that_was_on_its_way_to_a_client_that_left_is_kept() -> None:
    """Its client has the replay still to consume, so the end has not reached it."""
    async with world() as w:
        first, second = await w.joined(), await w.joined()
        local, number = await start(w, first, Exec((b"x",), (), detached=True, window=100))
        await say(first, FrameType.DETACH, local)
        await output(w, number, 1000)
        first.consuming = False
        await attach(first, number)
        await end(w, number)
        await first.hang_up()
        await settle()
        local = await attach(second, number)
        assert isinstance(second.sessions[local].end, Exited) and second.sessions[local].got == 1000


async def test_the_oldest_ends_make_room() -> None:
    async with world() as w:
        client = await w.joined()
        numbers = []
        for _ in range(ENDED_LIMIT + 3):
            local, number = await start(w, client, DETACHED)
            await say(client, FrameType.DETACH, local)
            await end(w, number)
            numbers.append(number)
        assert [info.id for info in w.relay.survivors.infos] == numbers[3:]


async def test_input_that_a_former_client_ended_is_ended_for_the_next() -> None:
    async with world() as w:
        client = await w.joined()
        local, number = await start(w, client, DETACHED)
        client.mux.send_data(FrameType.STDIN, local, b"in", end=True)
        await say(client, FrameType.DETACH, local)
        local = await attach(client, number)
        client.mux.send_data(FrameType.STDIN, local, b"more"[: client.mux.sendable(local)], end=True)
        await client.flush()
        await settle()
        assert w.agent.sessions[number].stdin == b"in"
        assert not client.closed.is_set()


async def test_credit_of_the_input_goes_on_with_the_next_client() -> None:
    async with world() as w:
        client = await w.joined()
        local, number = await start(w, client, Exec((b"x",), (), stdin=True, detached=True, stdin_window=1000))
        client.mux.send_data(FrameType.STDIN, local, bytes(600))
        await say(client, FrameType.DETACH, local)
        local = await attach(client, number)
        assert client.mux.sendable(local) == 400
        w.agent.credit(number)
        await w.agent.flush()
        await settle()
        assert client.mux.sendable(local) == 1000


async def test_commands_of_all_survivors_fit_into_one_answer() -> None:
    async with world() as w:
        client = await w.joined()
        for _ in range(2 * ENDED_LIMIT):
            local, number = await start(w, client, Exec((b"\xff" * 400,), (), detached=True))
            await say(client, FrameType.DETACH, local)
            if number % 2:
                await end(w, number)
        from trio_sandbox.relay.client_messages import Answer
        from trio_sandbox.relay.frames import MAX_BODY
        from trio_sandbox.relay.messages import encode_body

        assert len(w.relay.survivors.infos) > ENDED_LIMIT
        assert len(encode_body(Answer(console_tail="x" * 16_384, sessions=w.relay.survivors.infos))) < MAX_BODY


async def test_one_that_was_detached_from_survives_the_next_client_too() -> None:
    async with world() as w:
        client, second = await w.joined(), await w.joined()
        local, number = await start(w, client, DETACHABLE)
        await say(client, FrameType.DETACH, local)
        await attach(second, number)
        await second.hang_up()
        await settle()
        assert not w.agent.sessions[number].over
        local = await attach(client, number)
        assert client.sessions[local].started
