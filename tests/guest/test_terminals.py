"""Commands with a pseudo-terminal: what they see, what is typed, and that no output is lost."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import struct
import sys
from pathlib import Path

import pytest

from tests.guest.agent_client import BODY_MAX, END, WINDOW, Client

PYTHON = [sys.executable, "-S", "-c"]
RAW_BYTES = ["sh", "-c", "stty -opost; exec head -c 200000 /dev/zero"]


def fifo(folder: Path, name: str) -> Path:
    path = folder / name
    os.mkfifo(path)
    return path


def test_the_childs_controlling_terminal(agent: Client) -> None:
    look = (
        "import os; print([os.isatty(n) for n in range(3)], len({os.ttyname(n) for n in range(3)}),"
        " os.getsid(0) == os.getpid() == os.tcgetpgrp(0), *os.get_terminal_size(), os.open('/dev/tty', os.O_RDWR) > 2)"
    )
    outcome = agent.run([*PYTHON, look], tty=True, rows=33, cols=111)
    assert outcome.stdout == b"[True, True, True] 1 True 111 33 True\r\n"
    assert outcome.end.body["held_open"] is False


def test_a_size_that_nobody_gave(agent: Client) -> None:
    assert agent.run(["stty", "size"], tty=True).stdout == b"24 80\r\n"


def test_both_outputs_come_as_one(agent: Client) -> None:
    outcome = agent.run(["sh", "-c", "echo one; echo two >&2; echo three"], tty=True)
    assert (outcome.stdout, outcome.stderr) == (b"one\r\ntwo\r\nthree\r\n", b"")


@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user")
def test_the_terminal_belongs_to_the_user(agent: Client) -> None:
    outcome = agent.run(["sh", "-c", 'stat -L -c "%u %a" "$(tty)" && echo again > "$(tty)"'], tty=True, user="4711")
    assert outcome.stdout == b"4711 620\r\nagain\r\n"


def test_what_is_typed_is_echoed_and_the_end_is_a_character(agent: Client) -> None:
    session = agent.start(["cat"], tty=True, stdin=True)
    agent.send("STDIN", b"hello\n", session, flags=END)
    outcome = agent.outcome(session)
    assert sorted(outcome.stdout.replace(b"^D\b\b", b"").split()) == [b"hello", b"hello"]
    assert outcome.code == 0
    assert {frame.name for frame in outcome.frames} == {"STARTED", "STDOUT", "EXITED"}


def test_the_end_is_no_character_in_raw_mode(agent: Client, tmp_path: Path) -> None:
    go = fifo(tmp_path, "go")
    program = f"""
import os, tty
tty.setraw(0)
os.write(1, b"raw")
got = b""
while not got.endswith(b"q"):
    got += os.read(0, 100)
os.write(1, got)
open({str(go)!r}).read()
os.set_blocking(0, False)
try:
    os.write(1, b"more: %r" % os.read(0, 100))
except BlockingIOError:
    os.write(1, b" nothing")
"""
    session = agent.start([*PYTHON, program], tty=True, stdin=True)
    agent.until(lambda frame: frame.name == "STDOUT" and frame.body == b"raw")
    agent.send("STDIN", b"abq", session, flags=END)
    agent.until(lambda frame: frame.name == "STDOUT" and frame.body == b"abq")
    agent.barrier()
    go.write_text("")
    assert agent.outcome(session).stdout == b"rawabq nothing"


def test_control_c_is_typed(agent: Client) -> None:
    session = agent.start(["sh", "-c", "echo ready; exec sleep 1000"], tty=True, stdin=True)
    agent.until(lambda frame: frame.name == "STDOUT")
    agent.send("STDIN", b"\x03", session)
    assert agent.outcome(session).signal == 2


def test_much_is_typed(agent: Client) -> None:
    data = random.Random(5).randbytes(600_000)
    session = agent.start(
        ["sh", "-c", f"stty raw -echo; printf ready; head -c {len(data)} | sha256sum"], tty=True, stdin=True
    )
    agent.until(lambda frame: frame.name == "STDOUT")
    window, sent = WINDOW, 0
    while sent < len(data):
        size = min(window, BODY_MAX, len(data) - sent)
        if not size:
            window += struct.unpack("<I", agent.expect("CREDIT", session).body)[0]
            continue
        agent.send("STDIN", data[sent : sent + size], session)
        sent, window = sent + size, window - size
    outcome = agent.outcome(session)
    assert outcome.stdout.split()[0] == b"ready" + hashlib.sha256(data).hexdigest().encode()


def test_a_terminal_at_which_nobody_types(agent: Client) -> None:
    session = agent.start(["sh", "-c", "test -t 0 && echo yes && exec sleep 1000"], tty=True)
    agent.until(lambda frame: frame.name == "STDOUT" and frame.body == b"yes\r\n")
    agent.send("STDIN", b"x", session)
    assert agent.expect("ERROR", session).body["code"] == "no_stdin"
    agent.send("KILL", None, session)
    assert agent.outcome(session).signal == 9


def test_output_stops_without_credit(agent: Client) -> None:
    agent.auto_credit = False
    session = agent.start(RAW_BYTES, tty=True, window=5000)
    agent.expect("STARTED", session)
    got = 0
    while got < 5000:
        got += len(agent.expect("STDOUT", session).body)
    assert got == 5000
    assert agent.barrier() == []
    assert agent.run(["echo", "other"]).stdout == b"other\n"
    agent.send("KILL", None, session)
    assert agent.outcome(session).signal == 9


@pytest.mark.parametrize("window", [1000, 4096, WINDOW])
def test_all_of_the_output_comes_however_slow_the_reader(agent: Client, window: int) -> None:
    session = agent.start(RAW_BYTES, tty=True, window=window)
    outcome = agent.outcome(session)
    assert outcome.stdout == bytes(200_000)
    assert (outcome.code, outcome.end.body["held_open"]) == (0, False)


def test_what_the_terminal_holds_at_the_end_waits_for_credit(agent: Client, tmp_path: Path) -> None:
    agent.auto_credit = False
    done = fifo(tmp_path, "done")
    session = agent.start(["sh", "-c", f"stty -opost; head -c 9000 /dev/zero; echo > {done}"], tty=True, window=8999)
    done.read_text()
    agent.expect("STARTED", session)
    got = 0
    while got < 8999:
        got += len(agent.expect("STDOUT", session).body)
    assert agent.barrier() == []  # a byte is left, and EXITED is behind it
    agent.credit(session, 1)
    outcome = agent.outcome(session)
    assert (len(outcome.stdout), outcome.code) == (9000, 0)


def test_the_end_needs_no_credit_when_all_is_delivered(agent: Client) -> None:
    agent.auto_credit = False
    outcome = agent.run(["sh", "-c", "stty -opost; head -c 1234 /dev/zero"], tty=True, window=1234)
    assert len(outcome.stdout) == 1234


def test_background_process_holds_the_terminal(agent: Client, tmp_path: Path) -> None:
    go, end, proof = fifo(tmp_path, "go"), fifo(tmp_path, "end"), tmp_path / "proof"
    # The end of a session's leader is a SIGHUP to the terminal's foreground, which the holder ignores.
    holder = f"(read x < {go}; head -c 1000000 /dev/zero && echo done > {proof}; echo gone >> {end}) &"
    outcome = agent.run(["sh", "-c", f"trap '' HUP; echo before; {holder} exit 4"], tty=True)
    assert (outcome.stdout, outcome.code) == (b"before\r\n", 4)
    assert outcome.end.body["held_open"] is True
    go.write_text("go\n")
    assert end.read_text() == "gone\n"
    assert proof.read_text() == "done\n"
    assert agent.barrier() == []


def test_a_holder_that_talks_does_not_hold_up_the_end(agent: Client, tmp_path: Path) -> None:
    outcome = agent.run(["sh", "-c", "trap '' HUP; cat /dev/zero & exit 4"], tty=True)
    assert (outcome.code, outcome.end.body["held_open"]) == (4, True)


def test_a_process_that_leaves_its_terminal_is_left_alone(agent: Client, tmp_path: Path) -> None:
    left, go = fifo(tmp_path, "left"), fifo(tmp_path, "go")
    program = f"exec < /dev/null > /dev/null 2>&1; echo x > {left}; read x < {go}; echo back > /dev/tty; exit 7"
    session = agent.start(["sh", "-c", program], tty=True)
    assert left.read_text() == "x\n"
    for _ in range(2):  # the agent has seen by now that nobody holds the terminal
        agent.barrier()
    go.write_text("\n")
    outcome = agent.outcome(session)
    assert (outcome.code, outcome.stdout) == (7, b"back\r\n")


def test_resize_is_heard_while_output_waits(agent: Client, tmp_path: Path) -> None:
    agent.auto_credit = False
    heard = fifo(tmp_path, "heard")
    program = f"""
import os, signal
def resized(number, frame):
    with open({str(heard)!r}, "w") as out:
        print(*os.get_terminal_size(), file=out)
signal.signal(signal.SIGWINCH, resized)
while True:
    os.write(1, bytes(4096))
"""
    session = agent.start([*PYTHON, program], tty=True, window=1)
    agent.expect("STARTED", session)
    agent.expect("STDOUT", session)
    agent.send("RESIZE", {"rows": 50, "cols": 132}, session)
    assert heard.read_text() == "132 50\n"
    agent.send("KILL", None, session)
    assert agent.outcome(session).signal == 9


def test_resize_of_a_session_without_a_terminal_is_nothing(agent: Client) -> None:
    session = agent.start(["sleep", "1000"])
    agent.expect("STARTED", session)
    agent.send("RESIZE", {"rows": 50, "cols": 132}, session)
    assert agent.barrier() == []


@pytest.mark.parametrize("change", [{"rows": 0}, {"cols": 65_536}, {"tty": 1}, {"rows": "24"}])
def test_bad_terminals(agent: Client, change: dict[str, object]) -> None:
    assert agent.run(["true"], **{"tty": True, **change}).failure == "bad_args"


def test_a_command_that_cannot_start_on_a_terminal(agent: Client) -> None:
    assert agent.run(["/does/not/exist"], tty=True).failure == "not_found"
    assert agent.run(["true"], tty=True, user="nobody-knows-me").failure == "user_setup_failed"


def test_no_terminal_can_be_had(agent: Client) -> None:
    agent.barrier()
    used = len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))
    _, hard = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (used, hard))
    outcome = agent.run(["true"], tty=True)
    assert outcome.failure == "pty_setup_failed"
    assert outcome.end.body["errno"] == errno.EMFILE
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (hard, hard))
    assert agent.run(["true"], tty=True).code == 0


def test_no_descriptor_of_a_terminal_stays_behind(agent: Client) -> None:
    def starts() -> int:
        agent.run(["/does/not/exist"], tty=True, stdin=True)
        agent.run(["true"], tty=True, stdin=True)
        agent.barrier()
        return len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))

    before = starts()
    assert [starts() for _ in range(5)] == [before] * 5
