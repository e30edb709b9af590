"""Windows that are not the usual ones, and deadlines: what EXEC and DEADLINE say of them."""

from __future__ import annotations

import struct

import pytest

from tests.guest.agent_client import MORE, WINDOW, Client


def test_output_within_a_small_window(agent: Client) -> None:
    agent.auto_credit = False

    def take(count: int) -> None:
        while count > 0:
            count -= len(agent.expect("STDOUT", session).body)
        assert count == 0
        assert agent.barrier() == []

    session = agent.start(["head", "-c", "3000", "/dev/zero"], window=1000)
    agent.expect("STARTED", session)
    take(1000)
    agent.credit(session, 1)
    take(1)
    agent.credit(session, 999)
    take(999)
    agent.credit(session, 1000)
    outcome = agent.outcome(session)
    assert (len(outcome.stdout), outcome.code) == (3000, 0)


def test_more_credit_than_the_window_has(agent: Client) -> None:
    agent.auto_credit = False
    session = agent.start(["sleep", "1000"], window=1000)
    agent.expect("STARTED", session)
    agent.credit(session, 1)
    assert agent.expect("ERROR", session).body["code"] == "overdraw"
    assert agent.outcome(session).signal == 9


@pytest.mark.parametrize("window", [1, 3, 4000, 100_000])
def test_credit_comes_back_in_quarters(agent: Client, window: int) -> None:
    session = agent.start(["cat"], stdin=True, stdin_window=window)
    agent.expect("STARTED", session)
    sent = credit = 0
    while sent < 3 * window:
        size = min(window + credit - sent, 5000)
        if size:
            agent.send("STDIN", b"x" * size, session)
            sent += size
        else:
            frame = agent.until(lambda frame: frame.name == "CREDIT")
            (lot,) = struct.unpack("<I", frame.body)
            assert lot >= max(1, window // 4)
            credit += lot
            assert credit <= sent
    agent.send("KILL", None, session)
    assert agent.outcome(session).signal == 9


def test_more_input_than_the_window_has(agent: Client) -> None:
    session = agent.start(["sleep", "1000"], stdin=True, stdin_window=1000)
    agent.expect("STARTED", session)
    agent.send("STDIN", b"x" * 1000, session)
    assert agent.expect("CREDIT", session).body == struct.pack("<I", 1000)
    agent.send("STDIN", b"x" * 1001, session)
    assert agent.expect("ERROR", session).body["code"] == "overdraw"
    assert agent.outcome(session).signal == 9


@pytest.mark.parametrize("key", ["window", "stdin_window"])
@pytest.mark.parametrize("window", [0, WINDOW + 1, -1, "1000"])
def test_windows_that_cannot_be(agent: Client, key: str, window: object) -> None:
    assert agent.run(["true"], **{key: window}).failure == "bad_args"


def test_a_deadline_ends_all_and_is_no_timeout(agent: Client) -> None:
    outcome = agent.run(["sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000"], deadline_ms=50)
    assert (outcome.signal, outcome.end.body["timed_out"]) == (9, False)


def test_a_timeout_beside_a_deadline_is_told(agent: Client) -> None:
    outcome = agent.run(["sleep", "1000"], timeout_ms=50, deadline_ms=1_000_000)
    assert (outcome.signal, outcome.end.body["timed_out"]) == (9, True)


def test_a_deadline_is_set_and_moved(agent: Client) -> None:
    for options in ({}, {"deadline_ms": 1_000_000}):
        session = agent.start(["sleep", "1000"], **options)
        agent.expect("STARTED", session)
        agent.send("DEADLINE", {"deadline_ms": 10}, session)
        assert agent.outcome(session).signal == 9


def test_a_deadline_is_lifted(agent: Client) -> None:
    session = agent.start(["sh", "-c", "sleep 0.4; exit 3"], deadline_ms=200)
    agent.send("DEADLINE", {"deadline_ms": 0}, session)
    assert agent.outcome(session).code == 3


def test_a_deadline_also_ends_the_wait_for_a_reader(agent: Client) -> None:
    agent.auto_credit = False
    session = agent.start(["head", "-c", "5000", "/dev/zero"], window=1, deadline_ms=50)
    outcome = agent.outcome(session)
    assert outcome.stdout == b"\0"
    assert outcome.end.body["timed_out"] is False


def test_a_deadline_for_a_request_that_is_not_whole(agent: Client) -> None:
    agent.send("EXEC", b"\x81", 1, flags=MORE)
    agent.send("DEADLINE", {"deadline_ms": 1}, 1)
    assert agent.outcome(1).failure == "other"


@pytest.mark.parametrize("deadline", [-1, 2**63, "1"])
def test_deadlines_that_cannot_be(agent: Client, deadline: object) -> None:
    assert agent.run(["true"], deadline_ms=deadline).failure == "bad_args"
