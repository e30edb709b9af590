"""Events between the host and programs in a real guest, alone and in a flood."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from trio_sandbox import Event, EventStream, ExecEventType, Sandbox, connect, open_sandbox

pytestmark = pytest.mark.anyio

MSB_EVENT = "/.msb/bin/msb-event"
CONNECT = """
import json, select, socket, sys
def connect():
    end = socket.socket(socket.AF_UNIX)
    end.connect("/.msb/events.sock")
    return end, end.makefile("rb")
"""


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
async def test_events_there_and_back(warm: bool, tmp_path: Path) -> None:
    """One boot for the many small promises, each under its own name."""
    async with open_sandbox("events", image="local/base", warm=warm, listen=tmp_path / "socket") as sandbox:
        with trio.fail_after(120):
            await from_a_shell(sandbox)
            await from_a_socket(sandbox)
            await to_a_listener(sandbox)
            await by_another_client(sandbox)
            await until_the_end(sandbox)


async def from_a_shell(sandbox: Sandbox) -> None:
    async with sandbox.events() as stream:
        output = await sandbox.exec(MSB_EVENT, ["emit", "build.done", '{"ok": [true, "\u00e9"]}'], user="nobody")
        assert (output.exit_code, output.stdout_bytes, output.stderr_text) == (0, b"", "")
        assert await anext(stream) == Event("build.done", {"ok": [True, "\u00e9"]})
        output = await sandbox.exec(MSB_EVENT, ["emit", "build.done", "{'ok'}"])
        assert output.exit_code == 1 and output.stderr_text.startswith("msb-event: ")
        output = await sandbox.exec(MSB_EVENT, ["emit", "big", "-"], stdin=json.dumps("x" * 60_000))
        assert output.success
        assert await anext(stream) == Event("big", "x" * 60_000)


async def from_a_socket(sandbox: Sandbox) -> None:
    code = CONNECT + (
        "end, answers = connect()\n"
        "for step in range(300):\n"
        "    end.sendall(b'emit progress %d\\nemit other 0\\n' % step)\n"
        "    assert answers.readline() + answers.readline() == b'ok\\nok\\n'\n"
    )
    async with sandbox.events("progress") as stream, await sandbox.exec_stream("python3", ["-c", code]) as program:
        assert [(await anext(stream)).payload for _ in range(300)] == list(range(300))
        assert await program.wait() == (0, True)
        assert stream.dropped == 0


async def to_a_listener(sandbox: Sandbox) -> None:
    assert await sandbox.emit("go", "nobody hears it") == 0
    async with await sandbox.exec_stream(MSB_EVENT, ["listen", "go"]) as listener:
        begun = 0
        while not await sandbox.emit("go", {"turn": begun}):  # until it has connected
            begun += 1
        assert await sandbox.emit("other") == 0
        assert await sandbox.emit("go", "x" * 60_000) == 1
        heard = b""
        while heard.count(b"\n") < 2:
            event = await listener.recv()
            assert event is not None
            heard += (event.data or b"") if event.event_type is ExecEventType.STDOUT else b""
        assert heard == b'go {"turn":%d}\ngo "%s"\n' % (begun, b"x" * 60_000)
    while await sandbox.emit("go"):  # the agent sees it go when it may
        pass


async def by_another_client(sandbox: Sandbox) -> None:
    async with await connect(sandbox.addresses[0]) as other, other.events() as theirs, sandbox.events() as ours:
        assert (await sandbox.exec(MSB_EVENT, ["emit", "to.all", "1"])).success
        assert await anext(theirs) == await anext(ours) == Event("to.all", 1)
        async with await sandbox.exec_stream(MSB_EVENT, ["listen"]):
            while not await sandbox.emit("go"):
                pass
            assert await other.emit("go") == 1


async def until_the_end(sandbox: Sandbox) -> None:
    stream = sandbox.events("last")
    async with stream, trio.open_nursery() as nursery:
        assert (await sandbox.exec(MSB_EVENT, ["emit", "last", "1"])).success
        nursery.start_soon(sandbox.stop)
        assert [event.payload async for event in stream] == [1]


EMITTER = (
    CONNECT
    + """
stop, answer = connect()
stop.sendall(b"listen stop\\n")
assert answer.readline() == b"ok\\n"
end, answers = connect()
sent = 0
while not select.select([stop], [], [], 0)[0]:
    lines = [b'emit flood {"who": %s, "number": %d, "text": "%s"}\\n' % (sys.argv[1].encode(), sent + more, b"x" * 500)
             for more in range(64)]
    end.sendall(b"".join(lines))
    assert all(answers.readline() == b"ok\\n" for _ in lines)
    sent += len(lines)
print(sent)
"""
)


async def test_a_flood_starves_nobody_and_is_accounted_for() -> None:
    """Four programs emit as fast as they may until all else is done, which would never be if they could stop it."""
    async with open_sandbox("flood", image="local/base") as sandbox:
        with trio.fail_after(180):
            async with (
                sandbox.events() as busy,
                sandbox.events(overflow="drop_oldest") as oldest,
                sandbox.events(overflow="drop_newest", buffer_bytes=16_384) as newest,
            ):
                received: dict[EventStream, list[Event]] = {busy: [], oldest: [], newest: []}
                sent = await flood(sandbox, busy, received[busy])
                tails = await drain(sandbox, received)
            for stream, events in received.items():
                assert len(events) + stream.dropped == sent + tails
                assert sum(event.dropped for event in events) == stream.dropped
                for who in range(4):
                    numbers = [
                        one.payload["number"] for one in events if one.name == "flood" and one.payload["who"] == who
                    ]
                    assert numbers == sorted(set(numbers))
            assert oldest.dropped and newest.dropped


async def flood(sandbox: Sandbox, stream: EventStream, received: list[Event]) -> int:
    """Run the emitters until four commands have run beside them; how many events they emitted."""
    flooding = trio.Event()
    counts: list[int] = []

    async def run(who: int) -> None:
        counts.append(int((await sandbox.exec("python3", ["-c", EMITTER, str(who)])).stdout_text))

    async def read(scope: trio.CancelScope) -> None:
        with scope:
            async for event in stream:
                received.append(event)
                if {one.payload["who"] for one in received[-100:]} == {0, 1, 2, 3}:
                    flooding.set()

    async with trio.open_nursery() as nursery:
        reading = trio.CancelScope()
        nursery.start_soon(read, reading)
        async with trio.open_nursery() as emitters:
            for who in range(4):
                emitters.start_soon(run, who)
            await flooding.wait()
            for number in range(4):
                assert (await sandbox.shell(f"echo {number}; sed s/a/b/", stdin="abc")).stdout_text == f"{number}\nbbc"
            assert await sandbox.emit("stop") == 4
        reading.cancel()
    return sum(counts)


async def drain(sandbox: Sandbox, received: dict[EventStream, list[Event]]) -> int:
    """Receive all that there still is, and how many events were emitted to see that it is all."""
    behind = set(received)
    tails = 0

    async def read(stream: EventStream) -> None:
        async for event in stream:
            received[stream].append(event)
            if event.name == "tail":
                behind.discard(stream)
            if event.name == "end":
                return

    async with trio.open_nursery() as nursery:
        for stream in received:
            nursery.start_soon(read, stream)
        while behind:  # an event that comes while a queue is full is dropped as any other
            assert (await sandbox.exec(MSB_EVENT, ["emit", "tail", "0"])).success
            tails += 1
        assert (await sandbox.exec(MSB_EVENT, ["emit", "end", "0"])).success
    return tails + 1
