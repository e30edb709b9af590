"""Events that are too many: what is dropped is counted, and nobody starves anybody."""

from __future__ import annotations

import select
import signal
import time

import pytest

from tests.guest.agent_client import DEADLINE
from tests.guest.event_programs import CONNECTIONS_MAX, EVENTS_IN_TURN, OVERHEAD, TURN, WAITING_MAX, Events, numbered


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
