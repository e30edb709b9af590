"""Standard input and output: credit both ways, order, ends, and who waits for whom."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import struct
import sys
import time
from pathlib import Path

from tests.guest.agent_client import BODY_MAX, END, WINDOW, Client

PYTHON = [sys.executable, "-S", "-c"]


def held_fifo(folder: Path) -> Path:
    """A FIFO for a child to wait on: opening it for reading lasts until somebody opens it for writing."""
    path = folder / "go"
    os.mkfifo(path)
    return path


def test_a_mebibyte_through_cat(agent: Client) -> None:
    data = random.Random(1).randbytes(1 << 20)
    session = agent.start(["cat"], stdin=True)
    agent.expect("STARTED", session)
    window, sent, got = WINDOW, 0, 0
    digest = hashlib.sha256()
    while got < len(data):
        while sent < len(data) and window >= BODY_MAX:
            agent.send("STDIN", data[sent : sent + BODY_MAX], session)
            sent, window = sent + BODY_MAX, window - BODY_MAX
        frame = agent.receive()
        if frame.name == "CREDIT":
            window += struct.unpack("<I", frame.body)[0]
            assert window <= WINDOW
        else:
            assert frame.name == "STDOUT"
            digest.update(frame.body)
            got += len(frame.body)
    agent.send("STDIN", b"", session, flags=END)
    outcome = agent.outcome(session)
    assert outcome.code == 0
    assert digest.digest() == hashlib.sha256(data).digest()


def test_end_comes_after_what_was_sent_with_it(agent: Client) -> None:
    session = agent.start(["cat"], stdin=True)
    agent.send("STDIN", b"first ", session)
    agent.send("STDIN", b"last", session, flags=END)
    assert agent.outcome(session).stdout == b"first last"


def test_a_child_that_reads_nothing_stalls_nobody(agent: Client) -> None:
    deaf = agent.start(["sleep", "1000"], stdin=True)
    agent.expect("STARTED", deaf)
    for _ in range(WINDOW // BODY_MAX):
        agent.send("STDIN", b"x" * BODY_MAX, deaf)
    for _ in range(3):
        assert agent.run(["echo", "alive"]).stdout == b"alive\n"
    agent.send("KILL", None, deaf)
    assert agent.outcome(deaf).signal == 9


def test_output_stops_without_credit_and_goes_on_with_it(agent: Client) -> None:
    agent.auto_credit = False
    session = agent.start(["head", "-c", "400000", "/dev/zero"])
    got = 0
    agent.expect("STARTED", session)
    while got < WINDOW:
        got += len(agent.expect("STDOUT", session).body)
    assert got == WINDOW
    assert agent.barrier() == []  # nothing more comes by itself
    assert agent.run(["echo", "other"]).stdout == b"other\n"  # and others are not held up
    agent.credit(session, 1)
    assert len(agent.expect("STDOUT", session).body) == 1
    assert agent.barrier() == []
    agent.credit(session, WINDOW)
    outcome = agent.outcome(session)
    assert (len(outcome.stdout), outcome.code) == (400_000, 0)


def test_what_the_pipes_hold_at_the_end_waits_for_credit(agent: Client) -> None:
    agent.auto_credit = False
    session = agent.start(
        [*PYTHON, f"import os; os.write(1, b'x' * {WINDOW}); os.write(1, b'y' * 1000); os.write(2, b'z' * 10)"]
    )
    agent.expect("STARTED", session)
    got = 0
    while got < WINDOW:
        got += len(agent.receive().body)
    assert [frame.name for frame in agent.barrier()] == []  # the process ended, EXITED is held back by its output
    agent.credit(session, 2000)
    outcome = agent.outcome(session)
    assert outcome.stdout.endswith(b"y" * 1000) or got > WINDOW - 10
    assert len(outcome.stdout) + len(outcome.stderr) == WINDOW + 1010
    assert outcome.end.body["held_open"] is False


def test_credit_is_shared_by_both_streams(agent: Client) -> None:
    agent.auto_credit = False
    # No more than `head` writes at once. Of a larger window the last bytes, less than an eighth, may stay unused.
    window = 4096
    script = "head -c 200000 /dev/zero & head -c 200000 /dev/zero >&2; wait"
    session = agent.start(["sh", "-c", script], window=window)
    agent.expect("STARTED", session)
    got = 0
    while got < window:
        got += len(agent.receive().body)
    assert got == window
    assert agent.barrier() == []
    agent.auto_credit = True
    agent.credit(session, window)
    outcome = agent.outcome(session)
    assert (len(outcome.stdout), len(outcome.stderr)) == (200_000, 200_000)


def test_order_within_a_stream(agent: Client) -> None:
    outcome = agent.run(["seq", "1", "200000"])
    assert outcome.stdout == "".join(f"{number}\n" for number in range(1, 200_001)).encode()


def test_frames_are_batched(agent: Client) -> None:
    outcome = agent.run(["head", "-c", "4000000", "/dev/zero"])
    sizes = [len(frame.body) for frame in outcome.frames if frame.name == "STDOUT"]
    assert sum(sizes) == 4_000_000
    assert max(sizes) <= BODY_MAX


def test_little_pieces_grow_together(agent: Client) -> None:
    began = time.monotonic()
    outcome = agent.run(["dd", "if=/dev/zero", "bs=1", "count=20000", "status=none"])
    frames = [frame for frame in outcome.frames if frame.name == "STDOUT"]
    assert len(outcome.stdout) == 20_000
    assert len(frames) < (time.monotonic() - began) / 0.000_3 + 5  # a rest of 300 µs between two reads


def test_endless_talkers_share_the_port(agent: Client) -> None:
    sessions = [agent.start(["cat", "/dev/zero"]) for _ in range(3)]
    counts = dict.fromkeys(sessions, 0)
    while min(counts.values()) < 30:  # none is kept waiting for ever by the others
        frame = agent.receive()
        if frame.name == "STDOUT":
            counts[frame.session] += 1
    for session in sessions:
        agent.send("KILL", None, session)
        assert agent.outcome(session).signal == 9


def test_little_output_is_ahead_of_an_answer(agent: Client) -> None:
    """Of 2 MiB that commands may send, only what the socket and 128 KiB of the agent hold comes before a PONG."""
    agent.auto_credit = False
    sessions = [agent.start(["head", "-c", str(WINDOW), "/dev/zero"]) for _ in range(8)]
    deadline = time.monotonic() + 20
    while agent.unread() < 128 * 1024:  # the socket fills while nobody reads
        assert time.monotonic() < deadline
    ahead = agent.barrier()
    assert sum(len(frame.body) for frame in ahead if frame.name == "STDOUT") < 3 * WINDOW
    for session in sessions:
        assert agent.outcome(session).code == 0


def test_child_that_closes_its_input(agent: Client) -> None:
    session = agent.start([*PYTHON, "import os, time; os.close(0); print(flush=True); time.sleep(1000)"], stdin=True)
    names = {agent.receive().name for _ in range(3)}
    assert names == {"STARTED", "STDOUT", "STDIN_CLOSED"}
    closed = next(frame for frame in agent.seen if frame.name == "STDIN_CLOSED")
    assert closed.body == {"errno": errno.EPIPE}
    # What is still on its way is dropped, and paid for.
    window = WINDOW
    for _ in range(8):
        agent.send("STDIN", b"x" * BODY_MAX, session)
        window += struct.unpack("<I", agent.expect("CREDIT", session).body)[0] - BODY_MAX
    assert window == WINDOW
    agent.send("KILL", None, session)
    assert agent.outcome(session).signal == 9


def test_background_process_holds_the_output(agent: Client, tmp_path: Path) -> None:
    fifo, proof = held_fifo(tmp_path), tmp_path / "proof"
    # The holder waits, then writes far more than a pipe holds: it must get through, without SIGPIPE.
    holder = f"(read x < {fifo}; head -c 1000000 /dev/zero && echo done > {proof}; echo gone >> {fifo}.end) &"
    os.mkfifo(f"{fifo}.end")
    outcome = agent.run(["sh", "-c", f"echo before; {holder} exit 4"])
    assert (outcome.stdout, outcome.code) == (b"before\n", 4)
    assert outcome.end.body["held_open"] is True
    fifo.write_text("go\n")
    assert Path(f"{fifo}.end").read_text() == "gone\n"
    assert proof.read_text() == "done\n"
    assert agent.barrier() == []  # none of it was delivered


def test_server_in_the_background_outlives_its_shell(agent: Client) -> None:
    outcome = agent.run(["sh", "-c", "sleep 1000 & echo $!"])
    assert outcome.end.body["held_open"] is True
    assert agent.run(["kill", "-0", outcome.stdout.decode().strip()]).code == 0


def test_background_process_with_its_own_output_holds_nothing(agent: Client) -> None:
    # The redirection comes first: a shell that redirects after its fork may be gone before that is done.
    outcome = agent.run(["sh", "-c", "exec > /dev/null 2>&1; sleep 1000 &"])
    assert outcome.end.body["held_open"] is False


def test_late_output_of_a_holder_that_is_gone_is_delivered(agent: Client, tmp_path: Path) -> None:
    """Without credit EXITED waits; what comes in the meantime counts if nobody holds the pipe in the end."""
    agent.auto_credit = False
    go, gone = held_fifo(tmp_path), tmp_path / "gone"
    os.mkfifo(gone)
    session = agent.start(
        ["sh", "-c", f"head -c {WINDOW + 5} /dev/zero; (read x < {go}; echo late; exec > {gone} 2>&1; echo x) &"]
    )
    agent.expect("STARTED", session)
    got = 0
    while got < WINDOW:
        got += len(agent.receive().body)
    go.write_text("go\n")
    assert gone.read_text() == "x\n"
    agent.credit(session, 100)
    outcome = agent.outcome(session)
    assert len(outcome.stdout) - WINDOW in (5, 10)
    assert outcome.end.body["held_open"] is (len(outcome.stdout) - WINDOW == 5)
