"""What the agent says to frames that are valid in themselves, but not at this moment."""

from __future__ import annotations

import struct

import pytest

from tests.guest.agent_client import BODY_MAX, CONFIGURE, END, MORE, WINDOW, Client, HungUp, encode, exec_map
from tests.guest.conftest import Launch


def refused(agent: Client, session: int = 0) -> str:
    frame = agent.expect("ERROR", session)
    assert frame.body["message"]
    return str(frame.body["code"])


def test_hello_then_ready(launch: Launch) -> None:
    with launch() as agent:
        hello = agent.expect("HELLO")
        assert set(hello.body) == {"versions", "agent", "kernel"}
        agent.send("CONFIGURE", CONFIGURE)
        timings = agent.expect("READY").body["timings"]
        assert timings["hello"] <= timings["ready"]


def test_configure_comes_first_and_once(launch: Launch) -> None:
    with launch() as agent:
        agent.expect("HELLO")
        agent.send("EXEC", exec_map(["true"]), 1)
        assert refused(agent, 1) == "not_ready"
        agent.send("PING", b"early")
        assert agent.expect("PONG").body == b"early"
        agent.send("CONFIGURE", CONFIGURE)
        agent.expect("READY")
        agent.send("CONFIGURE", CONFIGURE)
        assert refused(agent) == "already_configured"


def test_shutdown_before_configure(launch: Launch) -> None:
    with launch() as agent:
        agent.expect("HELLO")
        agent.send("SHUTDOWN", {"grace_ms": 10})
        agent.expect("GOODBYE")


def test_ping(agent: Client) -> None:
    for body in (b"", b"x", bytes(range(64))):
        agent.send("PING", body)
        assert agent.expect("PONG").body == body


def test_clock_is_taken(agent: Client) -> None:
    agent.send("CLOCK", {"time_ns": 1_800_000_000_000_000_000})
    assert agent.barrier() == []


@pytest.mark.parametrize("name", ["STDIN", "SIGNAL", "KILL", "CREDIT"])
def test_frames_for_sessions_that_never_were_and_that_have_ended(agent: Client, name: str) -> None:
    bodies: dict[str, dict[str, object] | bytes] = {"SIGNAL": {"signal": 15}, "CREDIT": b"\1\0\0\0"}
    body = bodies.get(name, b"")
    agent.send(name, body, 77)
    assert refused(agent, 77) == "unknown_session"
    ended = agent.start(["true"])
    agent.outcome(ended)
    agent.send(name, body, ended)
    assert agent.barrier() == []


def test_session_ids_only_grow(agent: Client) -> None:
    agent.send("EXEC", exec_map(["true"]), 10)
    agent.outcome(10)
    for session in (10, 9, 1):
        agent.send("EXEC", exec_map(["true"]), session)
        assert refused(agent, session) == "session_reused"
    running = 11
    agent.send("EXEC", exec_map(["cat"], stdin=True), running)
    agent.expect("STARTED", running)
    agent.send("EXEC", exec_map(["true"]), running)
    assert refused(agent, running) == "session_reused"
    agent.send("STDIN", b"", running, flags=END)
    assert agent.outcome(running).code == 0


def test_a_session_belongs_to_its_slot(agent: Client) -> None:
    session = agent.start(["cat"], slot=5, stdin=True)
    assert agent.expect("STARTED", session).slot == 5
    agent.send("KILL", None, session, slot=6)
    assert refused(agent, session) == "wrong_slot"
    agent.send("STDIN", b"mine", session, slot=5, flags=END)
    assert agent.outcome(session).stdout == b"mine"


def test_stdin_where_none_is_wanted(agent: Client) -> None:
    session = agent.start(["sleep", "1000"])
    agent.expect("STARTED", session)
    agent.send("STDIN", b"x", session)
    assert refused(agent, session) == "no_stdin"
    other = agent.start(["sleep", "1000"], stdin=True)
    agent.expect("STARTED", other)
    agent.send("STDIN", b"x", other, flags=END)
    agent.send("STDIN", b"y", other)
    assert refused(agent, other) == "stdin_ended"


def test_overdrawn_stdin_kills_the_session_and_no_other(agent: Client) -> None:
    other = agent.start(["cat"], stdin=True)
    agent.expect("STARTED", other)
    session = agent.start(["sleep", "1000"], stdin=True)
    agent.expect("STARTED", session)
    for _ in range(3 * WINDOW // BODY_MAX):  # a pipe takes a window too
        agent.send("STDIN", b"x" * BODY_MAX, session)
    assert agent.until(lambda frame: frame.name == "ERROR").body["code"] == "overdraw"
    assert agent.outcome(session).signal == 9
    agent.send("STDIN", b"fine", other, flags=END)
    assert agent.outcome(other).stdout == b"fine"


@pytest.mark.parametrize("credit", [1, 0xFFFFFFFF])
def test_credit_beyond_the_window_kills_the_session(agent: Client, credit: int) -> None:
    session = agent.start(["sleep", "1000"])
    agent.expect("STARTED", session)
    agent.send("CREDIT", struct.pack("<I", credit), session)
    assert refused(agent, session) == "overdraw"
    assert agent.outcome(session).signal == 9


def test_kill_of_a_session_whose_exec_is_not_complete(agent: Client) -> None:
    agent.last_session = 1
    agent.send("EXEC", b"\x81", 1, flags=MORE)
    agent.send("KILL", None, 1)
    assert agent.outcome(1).failure == "other"
    agent.send("EXEC", b"\xa4argv\x90", 1)
    assert refused(agent, 1) == "session_reused"


def test_too_many_sessions(agent: Client) -> None:
    # Unfinished requests count as sessions, and cost no processes.
    for session in range(1, 1089):
        agent.send("EXEC", b"\x81", session, flags=MORE)
    agent.send("EXEC", exec_map(["true"]), 1089)
    assert agent.outcome(1089).failure == "too_many_sessions"
    agent.send("CLIENT_GONE")
    for session in range(1, 1089):
        assert agent.outcome(session).failure == "other"
    agent.last_session = 1089
    assert agent.run(["true"]).code == 0


def test_frames_in_pieces(agent: Client) -> None:
    raw = encode("EXEC", exec_map(["echo", "slow"]), 1) + encode("PING", b"x")
    for at in range(len(raw)):
        agent.send_raw(raw[at : at + 1])
    assert agent.outcome(1).stdout == b"slow\n"


def test_a_frame_cut_off_by_a_hang_up(launch: Launch) -> None:
    with launch() as agent:
        agent.configure()
        agent.send_raw(encode("PING", b"x" * 64)[:-1])
        agent.socket.shutdown(1)
        with pytest.raises(HungUp):
            agent.receive()


def test_a_host_that_does_not_read_is_not_read_from(agent: Client) -> None:
    """A flood of requests with answers must not grow the agent without bound: it stops taking them."""
    agent.socket.setblocking(False)
    ping = encode("PING", b"x" * 64) * 100
    sent = 0
    try:
        while sent < 64 << 20:
            sent += agent.socket.send(ping)
    except BlockingIOError:
        pass
    assert sent < 8 << 20
    agent.socket.setblocking(True)
    # What it did take it answers, once it is read from again.
    rest = ping[sent % 80 : 80] if sent % 80 else b""
    expected = (sent + 79) // 80
    while expected > 1000:  # there is room for the rest of the last ping only after some answers
        agent.expect("PONG")
        expected -= 1
    agent.send_raw(rest)
    for _ in range(expected):
        assert agent.expect("PONG").body == b"x" * 64
    assert agent.barrier() == []


def test_garbage_is_answered(agent: Client) -> None:
    agent.send_raw(b"\xff" * 16)
    assert refused(agent) == "bad_length"
    agent.expect("GOODBYE")
