"""Signals, kills, timeouts, clients that go, and the end of everything."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.guest.agent_client import TEMPLATE, Client, HungUp
from tests.guest.conftest import Launch

# Says "ready" when its handler is in place, and every signal it gets.
LISTENER = """
import os, signal, sys
def heard(number, frame):
    os.write(1, b"got %d\\n" % number)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, heard)
os.write(1, b"ready\\n")
while True:
    signal.pause()
"""


def listener(agent: Client) -> int:
    session = agent.start([sys.executable, "-S", "-c", LISTENER])
    agent.expect("STARTED", session)
    assert agent.expect("STDOUT", session).body == b"ready\n"
    return session


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_signals_reach_the_process(agent: Client) -> None:
    session = listener(agent)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        agent.send("SIGNAL", {"signal": int(number)}, session)
        assert agent.expect("STDOUT", session).body == b"got %d\n" % number
    agent.send("SIGNAL", {"signal": int(signal.SIGKILL)}, session)
    assert agent.outcome(session).signal == signal.SIGKILL


def test_a_signal_reaches_the_whole_group(agent: Client) -> None:
    session = agent.start(["sh", "-c", "sleep 1000 & echo $!; wait"])
    agent.expect("STARTED", session)
    child = int(agent.expect("STDOUT", session).body)
    agent.send("SIGNAL", {"signal": int(signal.SIGTERM)}, session)
    assert agent.outcome(session).signal == signal.SIGTERM
    deadline = time.monotonic() + 20
    while alive(child):  # it got the signal too, but is not what EXITED speaks of
        assert time.monotonic() < deadline
        agent.barrier()


def test_kill_ends_what_ignores_signals(agent: Client) -> None:
    session = agent.start(["sh", "-c", "trap '' TERM INT; echo ready; while :; do sleep 1000; done"])
    agent.until(lambda frame: frame.name == "STDOUT")
    agent.send("KILL", None, session)
    outcome = agent.outcome(session)
    assert (outcome.signal, outcome.end.body["timed_out"]) == (signal.SIGKILL, False)


def test_kill_right_after_exec(agent: Client) -> None:
    for _ in range(20):
        session = agent.start(["sleep", "1000"])
        agent.send("KILL", None, session)
        assert agent.outcome(session).signal == signal.SIGKILL


def test_kill_without_credit_ends_all_the_same(agent: Client) -> None:
    agent.auto_credit = False
    session = agent.start(["cat", "/dev/zero"])
    agent.expect("STARTED", session)
    agent.barrier()
    agent.send("KILL", None, session)
    assert agent.outcome(session).signal == signal.SIGKILL


def test_timeout_kills_and_says_so(agent: Client) -> None:
    outcome = agent.run(["sh", "-c", "echo partial; sleep 1000 & sleep 1000"], timeout_ms=200)
    assert (outcome.stdout, outcome.signal) == (b"partial\n", signal.SIGKILL)
    assert outcome.end.body["timed_out"] is True
    assert outcome.end.body["held_open"] is False


def test_timeout_that_is_not_reached(agent: Client) -> None:
    assert agent.run(["true"], timeout_ms=60_000).end.body["timed_out"] is False
    assert agent.run(["true"], timeout_ms=(1 << 63) // 10**6).code == 0


def test_client_gone_kills_the_sessions_of_its_slot_only(agent: Client) -> None:
    agent.auto_credit = False
    doomed = [agent.start(["sleep", "1000"], slot=3), agent.start(["cat", "/dev/zero"], slot=3)]
    other = agent.start(["cat"], slot=4, stdin=True)
    agent.barrier()
    agent.send("CLIENT_GONE", None, slot=3)
    for session in doomed:
        outcome = agent.outcome(session)
        assert outcome.signal == signal.SIGKILL
        assert all(frame.slot == 3 for frame in outcome.frames)
    agent.send("STDIN", b"still here", other, slot=4, flags=1)
    assert agent.outcome(other).stdout == b"still here"


def test_orphans_are_reaped(agent: Client) -> None:
    agent.run(["sh", "-c", "for i in 1 2 3 4 5; do (sleep 0 &) ; done"])
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
    deadline = time.monotonic() + 20
    while children.read_text().split():  # an orphan may end a moment after its parent
        assert time.monotonic() < deadline
        agent.barrier()


def test_many_sessions_at_once(agent: Client) -> None:
    sessions = [agent.start(["echo", str(number)]) for number in range(100)]
    for number, session in enumerate(sessions):
        assert agent.outcome(session).stdout == b"%d\n" % number


def test_no_descriptor_stays_behind(agent: Client) -> None:
    def open_descriptors() -> list[str]:
        return sorted(os.listdir(f"/proc/{agent.pid}/fd"))

    agent.run(["true"])
    agent.run(["sh", "-c", "sleep 0 &"])
    agent.barrier()
    before = len(open_descriptors())
    for _ in range(20):
        agent.run(["true"], stdin=True)
        agent.run(["no-such-program"], stdin=True)
        agent.start(["sleep", "1000"], stdin=True, timeout_ms=1)
        agent.outcome(agent.last_session)
    agent.barrier()
    assert len(open_descriptors()) <= before


def test_shutdown_lets_a_process_end_by_itself(launch: Launch) -> None:
    with launch() as agent:
        agent.configure()
        session = agent.start(["sh", "-c", "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"])
        agent.until(lambda frame: frame.name == "STDOUT")
        agent.send("SHUTDOWN", {"grace_ms": 20_000})
        frames = list(agent.rest())
        outcome = agent.outcome(session)
        assert (outcome.stdout, outcome.code) == (b"ready\nbye\n", 7)
        assert frames[-1].name == "GOODBYE"


def test_shutdown_kills_what_outlasts_the_grace(launch: Launch) -> None:
    with launch() as agent:
        agent.configure()
        session = agent.start(["sh", "-c", "trap '' TERM; echo $$; while :; do sleep 1000; done"])
        pid = int(agent.until(lambda frame: frame.name == "STDOUT").body)
        agent.send("SHUTDOWN", {"grace_ms": 100})
        late = agent.start(["true"])
        frames = list(agent.rest())
        assert agent.outcome(session).signal == signal.SIGKILL
        assert agent.outcome(late).failure == "other"
        assert frames[-1].name == "GOODBYE"
        assert not alive(pid)


def test_a_second_shutdown_shortens_the_grace(launch: Launch) -> None:
    with launch() as agent:
        agent.configure()
        session = agent.start(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"])
        agent.until(lambda frame: frame.name == "STDOUT")
        agent.send("SHUTDOWN", {"grace_ms": 1_000_000})
        agent.send("SHUTDOWN", {"grace_ms": 0})
        assert agent.outcome(session).signal == signal.SIGKILL
        agent.expect("GOODBYE")


def test_hang_up_ends_a_template(launch: Launch) -> None:
    with launch() as agent:
        agent.configure(TEMPLATE)
        agent.socket.close()


@pytest.mark.parametrize("configured", [False, True])
def test_hang_up_ends_everything(launch: Launch, configured: bool) -> None:
    with launch() as agent:
        pid = None
        if configured:
            agent.configure()
            agent.start(["sh", "-c", "echo $$; while :; do sleep 1000; done"])
            pid = int(agent.until(lambda frame: frame.name == "STDOUT").body)
        agent.socket.close()
    assert pid is None or not alive(pid)


def test_sigterm_to_the_agent_stops_in_order(launch: Launch) -> None:
    with launch() as agent:
        agent.configure()
        os.kill(agent.pid, signal.SIGTERM)
        agent.expect("GOODBYE")
        with pytest.raises(HungUp):
            agent.receive()
