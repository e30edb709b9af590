"""Events: programs at the agent's socket, and the host's EMIT and SUBSCRIBE."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.guest.agent_client import DEADLINE
from tests.guest.event_programs import EVENTS_IN_TURN, NAME_MAX, PAYLOAD_MAX, Events, events_of
from tests.guest.running import SANITIZERS


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
