"""The link and its sessions against a scripted guest, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_sandbox.errors import RemoteProtocolError, SandboxNotRunningError
from trio_sandbox.relay.credit import WINDOW
from trio_sandbox.relay.events import DataReceived, MessageReceived
from trio_sandbox.relay.frames import MAX_BODY, Frame, FrameType, Role, encode
from trio_sandbox.relay.link import FORGIVEN, AgentLink, LinkLost, Session
from trio_sandbox.relay.messages import (
    ErrorReport,
    Exec,
    Ready,
    Started,
    StdinClosed,
)
from trio_sandbox.relay.states import SideState
from trio_sandbox.service import service

from .scripted import EXITED, ScriptedGuest, linked, open_session

pytestmark = pytest.mark.anyio
REQUEST = Exec((b"prog",), (), stdin=True)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


async def start(session: Session, guest: ScriptedGuest) -> None:
    await guest.next_message(FrameType.EXEC)
    await guest.say(Started(7), session.id)
    event = await session.receive()
    assert isinstance(event, MessageReceived) and event.message == Started(7)


async def test_output_and_exit_arrive_in_order() -> None:
    async with linked() as (link, guest):
        session = open_session(link, REQUEST)
        await start(session, guest)
        await guest.output(session.id, b"one")
        await guest.output(session.id, b"two", FrameType.STDERR)
        await guest.say(EXITED, session.id)
        events = [await session.receive() for _ in range(3)]
        assert [event.type for event in events] == [FrameType.STDOUT, FrameType.STDERR, FrameType.EXITED]
        assert session.over


async def test_a_session_that_nobody_reads_stalls_no_other() -> None:
    async with linked() as (link, guest):
        silent, lively = open_session(link, REQUEST), open_session(link, REQUEST)
        await start(silent, guest)
        await start(lively, guest)
        await guest.output(silent.id, bytes(WINDOW))
        assert guest.mux.sendable(silent.id) == 0
        for _ in range(20):
            await guest.output(lively.id, bytes(MAX_BODY))
            event = await lively.receive()
            assert isinstance(event, DataReceived) and len(event.data) == MAX_BODY
            await guest.absorb()
        assert guest.mux.sendable(silent.id) == 0


async def test_stdin_of_any_size_is_fed_as_credit_comes() -> None:
    data = bytes(range(256)) * 8192
    async with linked() as (link, guest):
        session = open_session(link, REQUEST)
        await start(session, guest)
        session.feed(data)
        received = bytearray()
        while True:
            event = await guest.next_data()
            received += event.data
            guest.mux.acknowledge(session.id, len(event.data))
            await guest.flush()
            if event.end:
                break
        assert received == data


async def test_a_writer_waits_for_credit_and_learns_of_a_closed_input() -> None:
    async with linked() as (link, guest):
        session = open_session(link, REQUEST)
        await start(session, guest)
        with trio.move_on_after(60) as scope:
            await session.send_stdin(bytes(WINDOW + 1))
        assert scope.cancelled_caught
        await guest.say(StdinClosed(32), session.id)
        assert (await session.receive()).type is FrameType.STDIN_CLOSED
        with pytest.raises(BrokenPipeError):
            await session.send_stdin(b"more")


async def test_an_abandoned_session_keeps_its_program_from_blocking_until_it_is_dead() -> None:
    async with linked() as (link, guest):
        session = open_session(link, REQUEST)
        await start(session, guest)
        await guest.output(session.id, bytes(WINDOW))
        await wait_all_tasks_blocked()
        session.abandon()
        await guest.next_message(FrameType.KILL)
        await guest.absorb()
        assert guest.mux.sendable(session.id) == WINDOW
        await guest.say(EXITED, session.id)
        await wait_all_tasks_blocked()
        other = open_session(link, REQUEST)
        assert other.id > session.id


async def test_wrong_bytes_end_the_block_with_the_bare_error() -> None:
    with pytest.raises(RemoteProtocolError, match="not open"):
        async with linked() as (_, guest):
            await guest.stream.send_all(encode(Frame(FrameType.STDOUT, 99, b"x"), Role.GUEST))
            await trio.sleep_forever()


async def test_an_error_report_about_the_machine_ends_the_block() -> None:
    with pytest.raises(RemoteProtocolError, match="nonsense"):
        async with linked() as (_, guest):
            await guest.say(ErrorReport("nonsense", "what was that"))
            await trio.sleep_forever()


async def test_a_closed_stream_is_lost_and_the_reason_comes_from_elsewhere() -> None:
    async with linked() as (link, guest):
        session = open_session(link, REQUEST)
        await start(session, guest)
        await guest.stream.aclose()
        await link.lost.wait()
        with pytest.raises(LinkLost):
            await link.machine_message(FrameType.GOODBYE)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def waits() -> None:
                with pytest.raises(SandboxNotRunningError):
                    await session.receive()

            await wait_all_tasks_blocked()
            link.fail(lambda: SandboxNotRunningError("x"))
        with pytest.raises(SandboxNotRunningError):
            open_session(link, REQUEST)


async def test_what_a_full_socket_does_not_take_at_once_follows_in_order() -> None:
    """The caller writes to an idle socket itself; one that is full leaves the rest to the writer."""
    near, far = trio.socket.socketpair()
    near.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 4096)
    link = AgentLink(trio.SocketStream(near), greeted=True)
    guest = ScriptedGuest(trio.SocketStream(far))
    guest.mux.state = SideState.CONFIGURING
    async with service(link.serve, name="link"):
        await guest.say(Ready({}))
        await link.machine_message(FrameType.READY)
        await wait_all_tasks_blocked()
        session = open_session(link, REQUEST)
        await start(session, guest)
        data = bytes(range(256)) * (WINDOW // 256)
        session.feed(data)
        session.signal(10)
        got = bytearray()
        while len(got) < len(data):
            event = await guest.next()
            if isinstance(event, DataReceived):
                got += event.data
                guest.mux.acknowledge(session.id, len(event.data))
                await guest.flush()
        assert got == data
    await guest.stream.aclose()
    near.close()


@pytest.mark.parametrize("code", sorted(FORGIVEN))
async def test_a_refusal_that_concerns_one_session_does_not_end_the_machine(code: str) -> None:
    async with linked() as (link, guest):
        session = open_session(link, REQUEST)
        await start(session, guest)
        await guest.say(ErrorReport(code, "not that one"), session.id)
        await guest.output(session.id, b"still here")
        event = await session.receive()
        assert isinstance(event, DataReceived) and event.data == b"still here"
