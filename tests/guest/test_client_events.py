"""The client half of events against the agent: what either lets pass, counts and ends, the other does too."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import cast

import attrs
import pytest
import trio
import trio.testing

from tests.guest.agent_client import CONFIGURE, DEADLINE
from tests.guest.running import running_agent
from tests.relay.scripted import open_session
from trio_sandbox import Event, EventStream, Sandbox
from trio_sandbox.client.event_lines import MAX_DEPTH, MAX_JSON, MAX_NAME
from trio_sandbox.client.events import Overflow
from trio_sandbox.client.transport import SandboxControl
from trio_sandbox.relay.channel import ClientChannel
from trio_sandbox.relay.events import Opener
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.link import AgentLink, Session
from trio_sandbox.relay.messages import (
    Configure,
    Shutdown,
)
from trio_sandbox.service import service

pytestmark = pytest.mark.anyio


class AgentControl:
    """What a handle needs of a sandbox, of an agent alone."""

    owns_lifecycle = False
    must_be_ended = False
    shell = "/bin/sh"
    base_env = {"PATH": "/usr/bin:/bin"}  # noqa: RUF012
    default_workdir = "/"
    default_user = ""

    def __init__(self, link: AgentLink) -> None:
        self.channel = ClientChannel(link, 1)

    async def ping(self) -> None:
        await self.channel.link.ping()

    def open_session(self, request: Opener) -> Session:
        return open_session(self.channel.link, request, self.channel)


@attrs.define
class Program:
    """A connection as a program in the sandbox has one."""

    stream: trio.SocketStream
    buffer: bytearray = attrs.field(factory=bytearray)

    async def say(self, line: bytes) -> None:
        await self.stream.send_all(line + b"\n")

    async def hear(self) -> bytes:
        while b"\n" not in self.buffer:
            data = await self.stream.receive_some()
            assert data, bytes(self.buffer)
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return bytes(line)

    async def ask(self, line: bytes) -> bytes:
        await self.say(line)
        return await self.hear()


@attrs.define
class Guest:
    """An agent, the host's handle of it, and the programs that speak to it."""

    sandbox: Sandbox
    link: AgentLink
    path: Path
    stack: AsyncExitStack

    async def program(self) -> Program:
        return Program(await self.stack.enter_async_context(await trio.open_unix_socket(str(self.path))))

    async def listener(self, words: bytes = b"") -> Program:
        program = await self.program()
        assert await program.ask(b"listen " + words) == b"ok"
        return program


Serve = Callable[[], AbstractAsyncContextManager[Guest]]


@pytest.fixture
def serve(programs: Path, tmp_path: Path) -> Serve:
    return partial(serving, programs, tmp_path)


@asynccontextmanager
async def serving(programs: Path, folder: Path) -> AsyncIterator[Guest]:
    path = folder / "events.sock"
    with running_agent(programs / "agent", folder / "agent.log", False, path) as agent:
        ours = trio.SocketStream(trio.socket.from_stdlib_socket(agent.socket.dup()))
        with trio.fail_after(DEADLINE * 3):
            async with AsyncExitStack() as stack:
                link = AgentLink(await stack.enter_async_context(ours))
                await stack.enter_async_context(service(link.serve, name="link"))
                await link.machine_message(FrameType.HELLO)
                link.send(Configure(**CONFIGURE))  # type: ignore[arg-type]
                await link.machine_message(FrameType.READY)
                yield Guest(Sandbox(cast(SandboxControl, AgentControl(link))), link, path, stack)


async def test_there_and_back(serve: Serve) -> None:
    async with serve() as guest:
        program, listener, other = await guest.program(), await guest.listener(), await guest.listener(b"go")
        async with guest.sandbox.events("progress") as some, guest.sandbox.events() as all_:
            for line in (b'emit progress {"step": 1}', b"emit else null", b'emit progress "\xc3\xa9"'):
                assert await program.ask(line) == b"ok"
            assert [await anext(some) for _ in range(2)] == [Event("progress", {"step": 1}), Event("progress", "é")]
            assert [(await anext(all_)).name for _ in range(3)] == ["progress", "else", "progress"]
        assert await guest.sandbox.emit("go", {"to": ["é", 1.5]}) == 2
        assert await guest.sandbox.emit("stay") == 1
        assert [await listener.hear(), await listener.hear()] == ['go {"to":["é",1.5]}'.encode(), b"stay null"]
        assert await other.hear() == 'go {"to":["é",1.5]}'.encode()


async def test_a_subscription_ends_with_its_block(serve: Serve) -> None:
    async with serve() as guest:
        program = await guest.program()
        async with guest.sandbox.events():
            assert await program.ask(b"emit a 1") == b"ok"
            assert guest.link.mux.open_sessions
        assert not guest.link.mux.open_sessions
        assert await program.ask(b"emit a 2") == b"ok"
        stream = guest.sandbox.events()
        with trio.CancelScope() as scope:  # without a block it begins with the first wait: nothing is told of before
            async with trio.open_nursery() as nursery:
                nursery.start_soon(anext, stream)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        await guest.link.ping()  # goes behind the request
        assert await program.ask(b"emit a 3") == b"ok"
        assert await anext(stream) == Event("a", 3)
        await stream.aclose()
        assert not guest.link.mux.open_sessions


async def test_a_stop_ends_the_iteration(serve: Serve) -> None:
    async with serve() as guest:
        program = await guest.program()
        async with guest.sandbox.events() as stream:
            assert await program.ask(b"emit a 1") == b"ok"
            guest.link.send(Shutdown(0))
            assert [event.payload async for event in stream] == [1]


ACCEPTED = [
    b"null",
    b"-0",
    b"0.5e-3",
    b"1e999",
    b'""',
    rb'"\u0000\ud800"',
    rb'"\ud83d\ude00"',
    '"\U0010ffff\u2028"'.encode(),
    b"[]",
    b"{}",
    b'{"a" :\t1 ,\r"a": [ ] }',
    b'{"":{"":{}}}',
    b"1" * 1024,
    b"-" + b"1" * 1023,
    b"0." + b"1" * 1022,
    b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
    b'"' + b"[{" * 100 + b'"',
    b'"' + b"x" * (MAX_JSON - 2) + b'"',
]
REFUSED = [
    b"",
    b"NaN",
    b"-Infinity",
    b"nul",
    b"01",
    b"1.",
    b".5",
    b"+1",
    b"1e",
    b"'a'",
    b'"\x01"',
    rb'"\x"',
    rb'"\u12"',
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\xc0\x80"',
    b"\xef\xbb\xbf1",
    b"\xc2\xa01",
    b"1 2",
    b"[1,]",
    b"{1:2}",
    b'{"a"}',
    b"]",
    b"[}",
    b"1" * 1025,
    b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    b"[" * 60_000,
    b'"' + b"x" * (MAX_JSON - 1) + b'"',
]


async def test_what_the_agent_lets_pass_is_an_event_and_nothing_else(serve: Serve) -> None:
    async with serve() as guest:
        program = await guest.program()
        async with guest.sandbox.events("x") as stream:
            for payload in ACCEPTED:
                assert await program.ask(b"emit x " + payload) == b"ok", payload
                event = await anext(stream)  # raises RemoteProtocolError where the host is the stricter one
                assert (event.name, event.dropped) == ("x", 0)
            for payload in REFUSED:
                assert (await program.ask(b"emit x " + payload)).startswith(b"error "), payload
            assert await program.ask(b"emit x 1") == b"ok"
            assert await anext(stream) == Event("x", 1)


async def test_what_the_host_sends_the_agent_takes(serve: Serve) -> None:
    async with serve() as guest:
        listener = await guest.listener()
        deep: object = 1
        for _ in range(MAX_DEPTH):
            deep = [deep]
        odd = '\0\x1f\x7f\n\u2028\U0010ffff\\"/'
        values = [None, True, -1, 1e308, 5e-324, 10**1023, -(10**1022), odd, deep, {"a": {}}]
        for value in [*values, "x" * (MAX_JSON - 2), "é" * (MAX_JSON // 2 - 1), "\n" * (MAX_JSON // 2 - 1)]:
            assert await guest.sandbox.emit("n" * MAX_NAME, value) == 1
            name, _, payload = (await listener.hear()).partition(b" ")
            assert (name, json.loads(payload)) == (b"n" * MAX_NAME, value)


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
async def test_who_does_not_read_loses_events_by_count_and_disturbs_nobody(serve: Serve, overflow: Overflow) -> None:
    async with serve() as guest:
        program = await guest.program()
        flood, size = 600, 1_000
        async with guest.sandbox.events(overflow=overflow, buffer_bytes=16_384) as idle, guest.sandbox.events() as busy:
            for number in range(flood):
                assert await program.ask(b'emit flood "%06d%s"' % (number, b"x" * size)) == b"ok"
                assert (await anext(busy)).payload.startswith(f"{number:06d}")
            assert (await guest.sandbox.exec("echo", ["still"])).stdout_text == "still\n"
            assert (busy.dropped, idle.dropped) == (0, 0)
            received, tails = await drained(idle, program)
        assert len(received) + idle.dropped == flood + tails
        assert sum(event.dropped for event in received) == idle.dropped
        numbers = [int(event.payload[:6]) for event in received if event.name == "flood"]
        assert 250 < len(numbers) < 350  # 16 KiB here, 256 KiB there
        lost = set(range(flood)) - set(numbers)
        assert numbers == sorted(numbers)
        assert (numbers[-1] == flood - 1) == (overflow == "drop_oldest")
        assert lost == set(range(min(lost), min(lost) + len(lost)))


async def drained(stream: EventStream, program: Program) -> tuple[list[Event], int]:
    """All that a subscription has, up to an event that is emitted when it has caught up, and how many were emitted for
    that.
    """
    received: list[Event] = []
    caught_up = trio.Event()

    async def read() -> None:
        async for event in stream:
            received.append(event)
            if event.name == "tail":
                caught_up.set()
            if event.name == "end":
                return

    tails = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        while not caught_up.is_set():  # while the queue is full, these are dropped too
            assert await program.ask(b"emit tail 1") == b"ok"
            tails += 1
        assert await program.ask(b"emit end 1") == b"ok"
    return received, tails + 1
