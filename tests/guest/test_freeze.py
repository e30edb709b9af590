"""A machine that is copied while it serves: from FREEZE to THAW in the original, to IDENTIFY in the copy, as far as one
agent can play both.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.guest.agent_client import CONFIGURE, IDENTIFY, TEMPLATE, Client, encode, exec_map
from tests.guest.conftest import Launch


def frozen(agent: Client) -> None:
    agent.send("FREEZE")
    agent.expect("FROZEN")


def refused(agent: Client) -> str:
    return str(agent.expect("ERROR", 0).body["code"])


def test_the_original_goes_on_where_it_was(agent: Client) -> None:
    agent.send("EXEC", exec_map(["cat"], stdin=True), 1)
    agent.expect("STARTED", 1)
    frozen(agent)
    agent.send("THAW")
    agent.send("STDIN", b"still here\n", 1, flags=1)
    assert agent.outcome(1).stdout == b"still here\n"


def test_nothing_is_said_while_it_holds_still(agent: Client, tmp_path: Path) -> None:
    done = tmp_path / "done"
    agent.send("EXEC", exec_map(["sh", "-c", f"read x; echo output; : > {done}"], stdin=True), 1)
    agent.expect("STARTED", 1)
    frozen(agent)
    agent.send_raw(encode("PING", b"there?") + encode("STDIN", b"go\n", 1))
    while not done.exists():  # the program has ended, and its end waits
        time.sleep(0.001)
    assert agent.unread() == 0
    agent.send("THAW")
    assert agent.expect("PONG").body == b"there?"
    assert agent.outcome(1).stdout == b"output\n"


def test_a_copy_knows_nothing_of_the_sessions_and_its_programs_go_on(agent: Client, tmp_path: Path) -> None:
    alive, told = tmp_path / "alive", tmp_path / "told"
    os.mkfifo(told)
    script = f"head -c 100000 /dev/zero; cat; cat {told} > /dev/null; echo unheard; : > {alive}"
    agent.send("EXEC", exec_map(["sh", "-c", script], stdin=True, window=4096), 7)
    agent.expect("STARTED", 7)
    frozen(agent)
    agent.seen.clear()
    agent.send("IDENTIFY", IDENTIFY)
    assert set(agent.expect("READY").body["timings"]) == {"identify", "ready"}
    told.write_text("go on")  # its input has ended and its output is dropped, else it would stand still
    while not alive.exists():
        time.sleep(0.001)
    agent.last_session = 0
    assert agent.run(["echo", "new"]).stdout == b"new\n"
    assert agent.barrier() == []


def test_a_copy_ends_what_the_agent_itself_was_doing(agent: Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    agent.send("FS", {"op": "read", "path": bytes(tmp_path / "fifo")}, 3)
    agent.barrier()
    frozen(agent)
    agent.send("IDENTIFY", IDENTIFY)
    agent.expect("READY")
    assert agent.barrier() == []
    with pytest.raises(OSError, match="No such device or address"):  # its helper, which would read, is gone
        while True:
            os.close(os.open(tmp_path / "fifo", os.O_WRONLY | os.O_NONBLOCK))
            time.sleep(0.001)


def test_it_holds_still_once_at_a_time_and_only_when_it_serves(launch: Launch) -> None:
    with launch() as agent:
        agent.configure(TEMPLATE)
        agent.send("FREEZE")
        assert refused(agent) == "wrong_phase"
    with launch() as agent:
        agent.configure(CONFIGURE)
        agent.send("THAW")
        assert refused(agent) == "wrong_phase"
        frozen(agent)
        agent.send_raw(encode("FREEZE") + encode("THAW"))
        assert refused(agent) == "wrong_phase"
        agent.send("IDENTIFY", IDENTIFY)
        assert refused(agent) == "already_configured"
        assert agent.run(["true"]).code == 0


def test_an_original_that_is_stopped_ends_when_it_goes_on(agent: Client) -> None:
    frozen(agent)
    agent.send("SHUTDOWN", {"grace_ms": 0})
    agent.send("THAW")
    agent.expect("GOODBYE")
