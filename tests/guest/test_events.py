"""Events: programs at the agent's socket, and the host's EMIT and SUBSCRIBE."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import attrs
import msgpack
import pytest

from tests.guest.agent_client import DEADLINE, MORE, Client, Frame
from tests.guest.conftest import SANITIZERS, running_agent

PAYLOAD_MAX = 64 * 1024
NAME_MAX = 128
WAITING_MAX = 256 * 1024
OVERHEAD = 64
"""What an event counts in a queue beside its line."""

CONNECTIONS_MAX = 64
EVENTS_IN_TURN, TURN = 64, 0.020


class Program:
    """A connection as a program in the sandbox has one. Every wait has a deadline."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(str(path))
        self.lines: IO[bytes] = self.socket.makefile("rb")

    def say(self, line: bytes) -> None:
        self.socket.sendall(line + b"\n")

    def hear(self) -> bytes:
        """The next line without its line feed; b"" at the end."""
        return self.lines.readline().removesuffix(b"\n")

    def ask(self, line: bytes) -> bytes:
        self.say(line)
        return self.hear()

    def hears_nothing(self) -> bool:
        return not select.select([self.socket], [], [], 0)[0]

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


@attrs.define
class Events:
    """An agent, and the programs that speak to it."""

    agent: Client
    path: Path
    command: Path
    programs: list[Program] = attrs.field(factory=list)

    def program(self) -> Program:
        self.programs.append(Program(self.path))
        return self.programs[-1]

    def listener(self, words: bytes = b"") -> Program:
        program = self.program()
        assert program.ask(b"listen " + words) == b"ok"
        return program

    def run(
        self, *arguments: str, given: bytes = b"", socket_path: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """msb-event to its end."""
        return subprocess.run(
            [self.command, *arguments],
            input=given,
            capture_output=True,
            timeout=DEADLINE,
            env={**os.environ, **SANITIZERS, "MSB_EVENTS_SOCKET": str(socket_path or self.path)},
        )

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen(
            [self.command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **SANITIZERS, "MSB_EVENTS_SOCKET": str(self.path)},
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    # The host's side

    def open(self, name: str, body: object, slot: int = 0) -> int:
        """EMIT or SUBSCRIBE, in as many frames as it takes; the session's id."""
        self.agent.last_session += 1
        raw = msgpack.packb(body)
        parts = [raw[at : at + 60_000] for at in range(0, len(raw), 60_000)]
        for number, part in enumerate(parts, 1):
            flags = MORE if number < len(parts) else 0
            self.agent.send(name, part, self.agent.last_session, flags=flags, slot=slot)
        return self.agent.last_session

    def subscribe(self, name: str = "", drop_oldest: bool = True, window: int = 262_144, slot: int = 0) -> int:
        session = self.open("SUBSCRIBE", {"name": name, "drop_oldest": drop_oldest, "window": window}, slot)
        assert self.agent.barrier() == []
        return session

    def emit(self, name: str, payload: bytes) -> Frame:
        """EMIT, and its last frame."""
        session = self.open("EMIT", {"name": name, "payload": payload})
        return self.agent.until(lambda frame: frame.session == session)

    def reached(self, name: str, payload: bytes = b"1") -> int:
        """EMIT; how many listeners it was queued for."""
        done = self.emit(name, payload)
        assert done.name == "DONE", done
        assert (done.body["errno"], done.body["message"], done.body["status"]) == (0, "", None)
        return int(done.body["count"])

    def output(self, session: int) -> bytes:
        """What a subscription has said so far."""
        return b"".join(frame.body for frame in self.agent.seen if (frame.session, frame.name) == (session, "STDOUT"))

    def until_output(self, session: int, end: bytes) -> bytes:
        while not self.output(session).endswith(end):
            frame = self.agent.receive()
            assert (frame.name, frame.session) == ("STDOUT", session)
        return self.output(session)

    def kill(self, session: int) -> None:
        self.agent.send("KILL", None, session)
        self.agent.until(lambda frame: (frame.name, frame.session) == ("DONE", session))


@contextmanager
def events_of(programs: Path, folder: Path) -> Iterator[Events]:
    command = folder / "msb-event"
    command.symlink_to(programs / "agent")
    path = folder / "events.sock"
    with running_agent(programs / "agent", folder / "agent.log", False, path) as agent:
        agent.configure()
        events = Events(agent, path, command)
        try:
            yield events
        finally:
            for program in events.programs:
                program.close()


@pytest.fixture
def events(programs: Path, tmp_path: Path) -> Iterator[Events]:
    with events_of(programs, tmp_path) as events:
        yield events


def test_everybody_may_connect(events: Events) -> None:
    assert events.path.stat().st_mode & 0o777 == 0o666


# From programs to the host


def test_an_event_of_a_program_reaches_the_host(events: Events) -> None:
    session = events.subscribe()
    program = events.program()
    assert program.ask(b'emit build.done-1_x {"ok": true, "name": "\xc3\xa9"}') == b"ok"
    assert events.until_output(session, b"\n") == b'build.done-1_x {"ok": true, "name": "\xc3\xa9"}\n'
    assert program.ask(b"emit  second   [ 1 ] \t\r") == b"ok"
    assert events.until_output(session, b"]\n").endswith(b"\nsecond [ 1 ]\n")
    events.kill(session)


def test_subscriptions_hear_what_they_asked_for(events: Events) -> None:
    everything, one, other = events.subscribe(), events.subscribe("a"), events.subscribe("ab")
    program = events.program()
    for name in (b"a", b"ab", b"abc"):
        assert program.ask(b"emit " + name + b" 0") == b"ok"
    events.agent.barrier()
    assert events.output(everything) == b"a 0\nab 0\nabc 0\n"
    assert events.output(one) == b"a 0\n"
    assert events.output(other) == b"ab 0\n"


def test_an_event_for_nobody_is_ok(events: Events) -> None:
    session = events.subscribe("other")
    listener = events.listener()
    assert events.program().ask(b"emit a 1") == b"ok"
    assert events.agent.barrier() == []
    assert events.output(session) == b""
    assert listener.hears_nothing()  # programs hear the host, and not each other


def test_kill_ends_a_subscription(events: Events) -> None:
    session, other = events.subscribe(), events.subscribe()
    program = events.program()
    assert program.ask(b"emit a 1") == b"ok"
    events.kill(session)
    assert program.ask(b"emit a 2") == b"ok"
    events.agent.barrier()
    assert events.output(session) == b"a 1\n"
    assert events.output(other) == b"a 1\na 2\n"
    last = [frame for frame in events.agent.seen if frame.session == session][-1]
    assert (last.name, last.body["errno"], last.body["count"]) == ("DONE", 0, 0)


def test_a_client_that_goes_takes_its_subscriptions_along(events: Events) -> None:
    gone, staying = events.subscribe(slot=3), events.subscribe(slot=4)
    events.agent.send("CLIENT_GONE", None, slot=3)
    events.agent.until(lambda frame: (frame.name, frame.session, frame.slot) == ("DONE", gone, 3))
    assert events.program().ask(b"emit a 1") == b"ok"
    assert events.until_output(staying, b"a 1\n")


def test_the_largest_event(events: Events) -> None:
    session = events.subscribe()
    name, value = b"n" * NAME_MAX, b'"' + b"x" * (PAYLOAD_MAX - 2) + b'"'
    assert events.program().ask(b"emit " + name + b" " + value) == b"ok"
    assert events.until_output(session, b"\n") == name + b" " + value + b"\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"", "say: emit NAME JSON, or: listen"),
        (b"EMIT a 1", "say: emit"),
        (b"emitter a 1", "say: emit"),
        (b"\0\xff\x80", "say: emit"),
        (b"emit", "a name is"),
        (b"emit a", "there is no value"),
        (b"emit a b", "this is not JSON"),
        (b"emit a/b 1", "a name is"),
        (b"emit a\0b 1", "a name is"),
        (b"emit \xc3\xa9 1", "a name is"),
        (b"emit " + b"n" * (NAME_MAX + 1) + b" 1", "a name is"),
        (b"emit a 1 2", "something follows the value"),
        (b"emit a " + b"1" * (PAYLOAD_MAX + 1), "the value is longer than 64 KiB"),
        (b"emit a " + b"1" * PAYLOAD_MAX, "a number is longer"),
        (b"x" * (PAYLOAD_MAX + 200), "the line is too long"),
        (b"x" * 1_000_000, "the line is too long"),
        (b"listen a/b", "a name is"),
        (b"listen a b", "say: listen"),
        (b"listen a newest oldest", "say: listen"),
    ],
    ids=lambda value: ascii(value[:20]),
)  # fmt: skip
def test_lines_that_cannot_be_right_are_refused_and_nothing_else(events: Events, line: bytes, problem: str) -> None:
    session = events.subscribe()
    program = events.program()
    assert program.ask(line).startswith(b"error " + problem.encode())
    assert program.ask(b"emit a 1") == b"ok"
    assert events.until_output(session, b"\n") == b"a 1\n"


def test_lines_in_pieces_and_in_heaps(events: Events) -> None:
    session = events.subscribe()
    slow, fast = events.program(), events.program()
    for byte in b'emit slow ["bytes"]':
        slow.socket.sendall(bytes([byte]))
        assert fast.ask(b"emit fast 1") == b"ok"
    slow.say(b"\nemit heap 1\nemit heap 2")
    assert [slow.hear() for _ in range(3)] == [b"ok"] * 3
    events.agent.barrier()
    lines = events.output(session).splitlines()
    assert [line for line in lines if not line.startswith(b"fast")] == [b'slow ["bytes"]', b"heap 1", b"heap 2"]
    assert lines.count(b"fast 1") == len(b'emit slow ["bytes"]')


def test_a_line_without_an_end_is_none(events: Events) -> None:
    session = events.subscribe()
    program = events.program()
    program.socket.sendall(b"emit a 1\nemit a 2")
    program.socket.shutdown(socket.SHUT_WR)
    assert (program.hear(), program.hear()) == (b"ok", b"")
    events.agent.barrier()
    assert events.output(session) == b"a 1\n"


def test_who_does_not_wait_for_the_answers_is_heard_nevertheless(events: Events) -> None:
    session = events.subscribe()
    program = events.program()
    program.socket.sendall(b"".join(b"emit a %d\n" % number for number in range(3_000)))
    program.close()
    lines = events.until_output(session, b"a 2999\n").splitlines()
    assert lines == [b"a %d" % number for number in range(3_000)]


def test_who_does_not_read_the_answers_is_not_read(events: Events) -> None:
    deaf, other = events.program(), events.program()
    deaf.socket.setblocking(False)
    line = b"emit a 1\n"
    sent, taken = 0, 0
    # It is stuck when the agent takes nothing of it while it takes a whole lot of another's.
    while taken < 2 * EVENTS_IN_TURN:
        try:
            sent += deaf.socket.send(line * 100)
            taken = 0
        except BlockingIOError:
            assert other.ask(b"emit b 1") == b"ok"
            taken += 1
    deaf.socket.settimeout(DEADLINE)
    whole = sent // len(line)
    assert [deaf.hear() for _ in range(whole)] == [b"ok"] * whole


# Too much


def numbered(number: int, size: int = 1_000) -> bytes:
    """A line of `size` bytes, its line feed counted."""
    return b'n "%06d%s"' % (number, b"x" * (size - 11))


@pytest.mark.parametrize("window", [700, 1_000, 2_500])
def test_the_oldest_are_dropped_and_counted(events: Events, window: int) -> None:
    agent = events.agent
    agent.auto_credit = False
    session = events.subscribe(window=window)
    program = events.program()
    total = 400
    for number in range(total):
        assert program.ask(b"emit " + numbered(number)) == b"ok"
    agent.barrier()
    assert len(events.output(session)) == window
    agent.auto_credit = True
    agent.credit(session, window)
    lines = events.until_output(session, numbered(total - 1) + b"\n").splitlines()
    gone, begun = divmod(window, 1_000)
    waiting = WAITING_MAX // (1_000 + OVERHEAD)
    first_kept = total - (waiting - bool(begun))  # the one that is on its way waits too, and is never dropped
    dropped = first_kept - gone - bool(begun)
    assert lines == [
        *(numbered(number) for number in range(gone + bool(begun))),
        b"! %d" % dropped,
        *(numbered(number) for number in range(first_kept, total)),
    ]


@pytest.mark.parametrize("window", [700, 1_000, 2_500])
def test_the_newest_are_dropped_and_counted(events: Events, window: int) -> None:
    agent = events.agent
    agent.auto_credit = False
    session = events.subscribe(window=window, drop_oldest=False)
    program = events.program()
    total = 400
    for number in range(total):
        assert program.ask(b"emit " + numbered(number)) == b"ok"
    agent.barrier()
    agent.auto_credit = True
    agent.credit(session, window)
    gone, begun = divmod(window, 1_000)
    kept = gone + WAITING_MAX // (1_000 + OVERHEAD)
    lines = events.until_output(session, numbered(kept - 1) + b"\n").splitlines()
    told = gone + bool(begun)
    assert lines == [
        *(numbered(number) for number in range(told)),
        b"! %d" % (total - kept),
        *(numbered(number) for number in range(told, kept)),
    ]
    assert program.ask(b"emit " + numbered(total)) == b"ok"
    assert events.until_output(session, numbered(total) + b"\n").splitlines() == [*lines, numbered(total)]


def test_an_event_is_dropped_whole_whatever_its_size(events: Events) -> None:
    agent = events.agent
    agent.auto_credit = False
    session = events.subscribe(window=2_000)
    program = events.program()
    sizes = [60_000, 10, 50_000, 3, 60_000, 60_000, 40_000, 9, 65_000, 65_000, 1, 64_000]
    sent = [b"s%d " % number + b'"' + b"y" * size + b'"' for number, size in enumerate(sizes)]
    for line in sent:
        assert program.ask(b"emit " + line) == b"ok"
    agent.barrier()
    agent.auto_credit = True
    agent.credit(session, 2_000)
    lines = events.until_output(session, sent[-1] + b"\n").splitlines()
    notice = lines.pop(1)
    dropped = int(notice.removeprefix(b"! "))
    assert lines == [sent[0], *sent[1 + dropped :]]
    assert sum(len(line) + 1 + OVERHEAD for line in lines) <= WAITING_MAX
    # None was dropped without need: the last one that was would not have fitted.
    assert sum(len(line) + 1 + OVERHEAD for line in [*lines, sent[dropped]]) > WAITING_MAX


@pytest.mark.parametrize("policy", [b"oldest", b"newest"])
def test_a_listener_that_does_not_read_is_bounded(events: Events, policy: bytes) -> None:
    listener, other = events.listener(policy), events.listener()
    total, size = 3_000, 1_000
    reached = []
    for number in range(total):
        session = events.open("EMIT", {"name": "n", "payload": numbered(number, size)[2:]})
        done = events.agent.expect("DONE", session)
        reached.append(done.body["count"])
        assert other.hear() == numbered(number)  # one that reads loses nothing
    assert set(reached) == ({2} if policy == b"oldest" else {1, 2})
    dropped = 0
    received: list[bytes] = []
    while dropped + len(received) < total:
        line = listener.hear()
        if line.startswith(b"! "):
            dropped += int(line[2:])
        else:
            received.append(line)
    assert listener.hears_nothing()
    assert dropped > 0
    assert received == sorted(set(received))
    assert (received[-1] == numbered(total - 1)) == (policy == b"oldest")
    assert len(received) * (size + OVERHEAD) < 4 * WAITING_MAX  # with what the kernel holds of them
    assert dropped == total - len(received)
    if policy == b"newest":
        assert dropped == reached.count(1)


def test_there_are_64_connections(events: Events) -> None:
    programs = [events.program() for _ in range(CONNECTIONS_MAX)]
    assert programs[-1].ask(b"emit a 1") == b"ok"
    late = events.program()
    assert (late.hear(), late.hear()) == (b"error too many connections", b"")
    programs[5].close()
    events.agent.barrier()

    def accepted() -> bool:
        # The agent sees the end of the other one in its own time.
        program = events.program()
        try:
            return program.ask(b"emit a 1") == b"ok"
        except (BrokenPipeError, ConnectionResetError):
            return False

    until = time.monotonic() + DEADLINE
    while not accepted():
        assert time.monotonic() < until
    assert [program.ask(b"emit a 1") for program in programs if program is not programs[5]] == [b"ok"] * 63


def test_there_are_128_subscriptions(events: Events) -> None:
    sessions = [events.open("SUBSCRIBE", {"name": "", "drop_oldest": True, "window": 1_000}) for _ in range(128)]
    assert events.agent.barrier() == []
    late = events.open("SUBSCRIBE", {"name": "", "drop_oldest": True, "window": 1_000})
    assert events.agent.expect("FAILED", late).body["kind"] == "too_many_sessions"
    events.kill(sessions[77])
    sessions[77] = events.subscribe()
    assert events.program().ask(b"emit a 1") == b"ok"
    events.agent.barrier()
    assert {events.output(session) for session in sessions} == {b"a 1\n"}


def test_emitters_wait_and_nobody_else_does(events: Events) -> None:
    """A flood of four is taken at the agreed rate, each has its share, and a ping does not wait for it."""
    session = events.subscribe()
    programs = [events.program() for _ in range(4)]
    each = 400
    began = time.monotonic()
    for index, program in enumerate(programs):
        program.socket.sendall(b"".join(b"emit p%d %d\n" % (index, number) for number in range(each)))
    latencies = []
    taken = 0
    while taken < 4 * each:
        asked = time.monotonic()
        frames = events.agent.barrier()
        latencies.append(time.monotonic() - asked)
        taken += sum(frame.body.count(b"\n") for frame in frames if frame.name == "STDOUT")
        for readable in select.select([program.socket for program in programs], [], [], 0.001)[0]:
            readable.recv(65_536)  # the answers, or the emitter would not be read any more
    took = time.monotonic() - began
    turns = 4 * each / EVENTS_IN_TURN
    assert took >= (turns - 2) * TURN
    # By rights a few hundred microseconds. One that had to wait for the whole flood would take half a second.
    assert sorted(latencies)[len(latencies) // 2] < 0.1
    lines = events.output(session).splitlines()
    for index in range(4):
        own = b"p%d " % index
        assert [line for line in lines if line.startswith(own)] == [own + b"%d" % number for number in range(each)]
    middle = lines[each : 2 * each]
    assert all(sum(line.startswith(b"p%d " % index) for line in middle) > each // 8 for index in range(4))


def test_an_event_shares_the_port_with_output(events: Events) -> None:
    """A command that floods the host does not keep events from it, nor the other way round."""
    session = events.subscribe()
    flood = events.agent.start(["cat", "/dev/zero"])
    program = events.program()
    for number in range(20):
        assert program.ask(b"emit a %d" % number) == b"ok"
        events.agent.until(lambda frame: (frame.session, frame.name) == (session, "STDOUT"))
    events.agent.send("KILL", None, flood)
    assert events.agent.outcome(flood).signal == signal.SIGKILL


# From the host to programs


def test_an_event_of_the_host_reaches_those_who_listen(events: Events) -> None:
    everything, one, other = events.listener(), events.listener(b"reload"), events.listener(b"other oldest")
    events.program()  # one that only might
    assert events.reached("reload", b'{"a": [1]}') == 2
    assert everything.hear() == b'reload {"a": [1]}'
    assert one.hear() == b'reload {"a": [1]}'
    assert other.hears_nothing()
    assert events.reached("nobody") == 1
    assert everything.hear() == b"nobody 1"
    assert other.hears_nothing()


def test_words_that_are_policies_can_be_names(events: Events) -> None:
    everything, named = events.listener(b"newest"), events.listener(b"newest newest")
    assert events.reached("newest") == 2
    assert events.reached("else") == 1
    assert (everything.hear(), everything.hear()) == (b"newest 1", b"else 1")
    assert named.hear() == b"newest 1"
    assert named.hears_nothing()


def test_the_host_does_not_hear_itself(events: Events) -> None:
    session = events.subscribe()
    assert events.reached("a") == 0
    assert events.output(session) == b""


def test_listen_is_the_last_word(events: Events) -> None:
    session = events.subscribe()
    listener = events.listener()
    listener.say(b"emit a 1")
    listener.say(b"x" * 5_000)
    assert events.reached("b") == 1
    assert listener.hear() == b"b 1"
    assert events.output(session) == b""
    listener.socket.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError):  # the kernel's word for an end with something unread
        listener.hear()
    assert events.reached("b") == 0


def test_the_largest_event_of_the_host(events: Events) -> None:
    listener = events.listener()
    value = b'"' + b"x" * (PAYLOAD_MAX - 2) + b'"'
    assert events.reached("n" * NAME_MAX, value) == 1
    assert listener.hear() == b"n" * NAME_MAX + b" " + value


@pytest.mark.parametrize(
    "body",
    [
        {}, {"name": "a"}, {"payload": b"1"}, {"name": b"a", "payload": b"1"}, {"name": "a", "payload": "1"},
        {"name": "", "payload": b"1"}, {"name": "a b", "payload": b"1"}, {"name": "é", "payload": b"1"},
        {"name": "n" * (NAME_MAX + 1), "payload": b"1"}, {"name": "a", "payload": b""},
        {"name": "a", "payload": b"[1,\n2]"}, {"name": "a", "payload": b"1\n"}, {"name": "a", "payload": b'"\xff"'},
        {"name": "a\nb", "payload": b"1"},
        {"name": "a", "payload": b'"' + b"x" * (PAYLOAD_MAX - 1) + b'"'}, [], 1,
    ],
    ids=lambda body: ascii(body)[:40],
)  # fmt: skip
def test_emit_is_checked(events: Events, body: object) -> None:
    listener = events.listener()
    session = events.open("EMIT", body)
    failed = events.agent.expect("FAILED", session)
    assert (failed.body["kind"], bool(failed.body["message"])) == ("bad_args", True)
    assert events.reached("next") == 1
    assert listener.hear() == b"next 1"


@pytest.mark.parametrize(
    "body",
    [
        {}, {"name": 1}, {"name": "a b"}, {"name": "n" * (NAME_MAX + 1)}, {"name": "", "drop_oldest": 1},
        {"name": "", "window": 0}, {"name": "", "window": 262_145}, {"name": "", "window": True}, [],
    ],
    ids=lambda body: ascii(body)[:40],
)  # fmt: skip
def test_subscribe_is_checked(events: Events, body: object) -> None:
    session = events.open("SUBSCRIBE", body)
    assert events.agent.expect("FAILED", session).body["kind"] == "bad_args"
    assert events.agent.barrier() == []


def test_keys_of_a_later_version_are_skipped(events: Events) -> None:
    listener = events.listener()
    later = {"from a later version": [1, {"a": b"b"}]}
    events.open("EMIT", {**later, "name": "a", "payload": b"1"})
    assert listener.hear() == b"a 1"
    assert events.open("SUBSCRIBE", {**later, "name": "a"})
    assert events.program().ask(b"emit a 1") == b"ok"
    events.agent.until(lambda frame: frame.name == "STDOUT")


# The end


def test_shutdown_ends_it_all_at_once(programs: Path, tmp_path: Path) -> None:
    with events_of(programs, tmp_path) as events:
        session = events.subscribe()
        listener, emitter = events.listener(), events.program()
        began = time.monotonic()
        events.agent.send("SHUTDOWN", {"grace_ms": 5_000})
        assert events.agent.receive().name == "DONE"
        assert events.agent.receive().name == "GOODBYE"
        assert time.monotonic() - began < 0.9  # nobody waited for somebody's patience
        assert events.agent.seen[-2].session == session
        assert (listener.hear(), emitter.hear()) == (b"", b"")


def test_last_words_reach_the_host(events: Events) -> None:
    session = events.subscribe()
    script = f'trap "{events.command} emit last 1; exit" TERM; echo ready; while :; do sleep 0.01; done'
    env = [f"MSB_EVENTS_SOCKET={events.path}", "PATH=/usr/bin:/bin", *(f"{k}={v}" for k, v in SANITIZERS.items())]
    started = events.agent.start(["sh", "-c", script], env=env)
    events.agent.until(lambda frame: (frame.name, frame.session) == ("STDOUT", started))
    events.agent.send("SHUTDOWN", {"grace_ms": 20_000})
    events.agent.until(lambda frame: frame.name == "GOODBYE")
    assert events.output(session) == b"last 1\n"


# The program for those who speak no sockets


def test_the_command_emits(events: Events) -> None:
    session = events.subscribe()
    done = events.run("emit", "a", '{"b": 1}')
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    pretty = json.dumps({"c": [1, 2]}, indent=2).encode() + b"\n"
    assert events.run("emit", "d", "-", given=pretty).returncode == 0
    events.agent.barrier()
    first, second = events.output(session).splitlines()
    assert first == b'a {"b": 1}'
    assert json.loads(second.removeprefix(b"d ")) == {"c": [1, 2]}


@pytest.mark.parametrize(
    ("arguments", "given", "problem"),
    [
        (["emit", "a", "b"], b"", b"this is not JSON"),
        (["emit", "a", ""], b"", b"there is no value"),
        (["emit", "a b", "1"], b"", b"a name is"),
        (["emit", "a\nemit b", "1"], b"", b"a name is"),
        (["emit", "", "1"], b"", b"a name is"),
        (["emit", "a", "-"], b'"a\nb"', b"control character"),
        (["emit", "a", "-"], b"", b"there is no value"),
        (["emit", "a", "-"], b'"' + b"x" * PAYLOAD_MAX, b"longer than 64 KiB"),
        (["emit", "a", "-"], b"1" + b" " * 80_000, b"longer than 64 KiB"),
        (["listen", "a b"], b"", b"a name is"),
    ],
    ids=ascii,
)
def test_the_command_says_what_is_wrong(events: Events, arguments: list[str], given: bytes, problem: bytes) -> None:
    session = events.subscribe()
    done = events.run(*arguments, given=given)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"msb-event: ")
    assert problem in done.stderr
    events.agent.barrier()
    assert events.output(session) == b""


@pytest.mark.parametrize(
    "arguments",
    [[], ["emit"], ["emit", "a"], ["emit", "a", "1", "2"], ["listen", "a", "b"], ["listen", "--oldest"], ["hear"]],
)
def test_the_command_explains_itself(events: Events, arguments: list[str]) -> None:
    done = events.run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"usage: msb-event emit NAME JSON")
    asked = events.run("--help")
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, done.stderr, b"")


def test_the_command_needs_an_agent(events: Events, tmp_path: Path) -> None:
    for arguments in (["emit", "a", "1"], ["listen"]):
        done = events.run(*arguments, socket_path=tmp_path / "nothing")
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"No such file" in done.stderr
    done = events.run("listen", socket_path=tmp_path / ("x" * 200))
    assert b"too long" in done.stderr


def wait_for_listeners(events: Events, name: str, count: int) -> None:
    until = time.monotonic() + DEADLINE
    while events.reached(name) != count:
        assert time.monotonic() < until


@pytest.mark.parametrize("policy", [[], ["--newest"]])
def test_the_command_listens(events: Events, policy: list[str]) -> None:
    with events.running("listen", "newest", *policy) as process:
        assert process.stdout and process.stderr
        wait_for_listeners(events, "newest", 1)
        assert process.stdout.readline() == b"newest 1\n"
        assert events.reached("else") == 0
        large = b'"' + b"x" * (PAYLOAD_MAX - 2) + b'"'
        assert events.reached("newest", large) == 1
        assert process.stdout.readline() == b"newest " + large + b"\n"
        events.agent.end()
        assert process.stdout.read() == b""
        assert (process.wait(DEADLINE), process.stderr.read()) == (0, b"")


def test_the_command_ends_with_whoever_reads_it(events: Events) -> None:
    with events.running("listen") as process:
        assert process.stdout and process.stderr
        wait_for_listeners(events, "a", 1)
        assert process.stdout.readline() == b"a 1\n"
        process.stdout.close()
        assert (process.wait(DEADLINE), process.stderr.read()) == (0, b"")  # without an event that it could not write
    wait_for_listeners(events, "a", 0)


def test_the_command_tells_what_was_lost(events: Events) -> None:
    with events.running("listen") as process:
        assert process.stdout
        wait_for_listeners(events, "n", 1)
        process.send_signal(signal.SIGSTOP)
        total = 2_000
        for number in range(total):
            assert events.reached("n", numbered(number)[2:]) == 1
        process.send_signal(signal.SIGCONT)
        received, dropped = 0, 0
        assert process.stdout.readline() == b"n 1\n"
        while received + dropped < total:
            line = process.stdout.readline()
            dropped += int(line[2:]) if line.startswith(b"! ") else 0
            received += line.startswith(b"n ")
        assert line == numbered(total - 1) + b"\n"
        assert dropped > 0
