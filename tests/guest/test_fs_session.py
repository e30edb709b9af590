"""The session of an operation on files: what is refused, as whom it runs, and what is left of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgpack
import pytest

from tests.guest.agent_client import MORE, WINDOW, Client
from tests.guest.fs_client import feed, fs, fs_map, fs_outcome, fs_start

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="changing the user needs root")


@pytest.mark.parametrize(
    "body",
    [
        {"op": "stat"},
        {"path": b"/"},
        {"op": 7, "path": b"/"},
        {"op": "stat", "path": b""},
        {"op": "stat", "path": b"relative"},
        {"op": "stat", "path": b"/nul\0"},
        {"op": "stat", "path": b"/" + b"x" * 4096},
        {"op": "stat", "path": b"/", "user": "x" * 513},
        {"op": "stat", "path": b"/", "follow": 1},
        {"op": "stat", "path": b"/", "window": 0},
        {"op": "stat", "path": b"/", "stdin_window": WINDOW + 1},
        {"op": "stat", "path": b"/", "deadline_ms": -1},
        {"op": "read", "path": b"/", "offset": -1},
        {"op": "read", "path": b"/", "length": -2},
        {"op": "write", "path": b"/x", "mode": 0o10000},
        {"op": "copy", "path": b"/"},
        {"op": "rename", "path": b"/", "to": b"x"},
        {"op": "symlink", "path": b"/", "to": b""},
        {"op": "chmod", "path": b"/"},
        {"op": "chown", "path": b"/"},
        [],
    ],
)
def test_map_that_cannot_be_right(agent: Client, body: object) -> None:
    agent.last_session += 1
    agent.send("FS", msgpack.packb(body), agent.last_session)
    assert fs_outcome(agent, agent.last_session).failure == "bad_args"


def test_longest_path(agent: Client) -> None:
    path = "/" + "x" * 4095
    assert fs(agent, "stat", path).error == (errno.ENAMETOOLONG, path)


def test_unknown_operation_and_unknown_keys(agent: Client, tmp_path: Path) -> None:
    assert fs(agent, "defragment", tmp_path, harder=True).error == (errno.ENOSYS, "")
    assert fs(agent, "stat", tmp_path, colour="blue").done["status"]


def test_map_in_parts(agent: Client, tmp_path: Path) -> None:
    raw = msgpack.packb(fs_map("stat", tmp_path, ignored="x" * 100_000))
    agent.last_session += 1
    agent.send("FS", raw[:50_000], agent.last_session, flags=MORE)
    agent.send("FS", raw[50_000:], agent.last_session)
    assert fs_outcome(agent, agent.last_session).done["status"]


def test_unknown_user(agent: Client, tmp_path: Path) -> None:
    outcome = fs(agent, "write", tmp_path / "x", b"data", user="no-such-user")
    assert outcome.failure == "user_setup_failed"
    assert "no such user" in outcome.end.body["message"]


@needs_root
def test_rights_are_those_of_the_user(agent: Client, open_folder: Path) -> None:
    secret = open_folder / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    assert fs(agent, "read", secret, user="nobody").error == (errno.EACCES, str(secret))
    assert fs(agent, "write", secret, b"", user="nobody").error == (errno.EACCES, str(secret))
    assert fs(agent, "chmod", secret, mode=0o666, user="nobody").error == (errno.EPERM, str(secret))
    assert fs(agent, "chown", secret, owner="nobody", user="nobody").error == (errno.EPERM, str(secret))
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    for op in ("list", "pack"):
        assert fs(agent, op, closed, user="nobody").error == (errno.EACCES, str(closed))
    for op in ("stat", "remove", "remove_dir", "readlink"):
        assert fs(agent, op, closed / "x", user="nobody").error == (errno.EACCES, str(closed / "x"))
    for op in ("write", "mkdir", "symlink"):
        outcome = fs(agent, op, closed / "x", b"" if op == "write" else None, user="nobody", atomic=True, to="x")
        assert outcome.error == (errno.EACCES, str(closed / "x"))
    assert os.listdir(closed) == []


@needs_root
def test_what_is_made_belongs_to_the_user(agent: Client, open_folder: Path) -> None:
    for atomic in (False, True):
        path = open_folder / f"file{atomic}"
        fs(agent, "write", path, b"x", atomic=atomic, user="1234:4321").check()
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)
    fs(agent, "chmod", open_folder / "fileTrue", mode=0o640, user="1234").check()  # without following: by /proc
    assert (open_folder / "fileTrue").stat().st_mode & 0o7777 == 0o640


def test_small_windows(agent: Client, tmp_path: Path) -> None:
    data = bytes(range(256)) * 100
    session = fs_start(agent, "write", tmp_path / "file", stdin_window=1000)
    feed(agent, session, data, window=1000)
    assert fs_outcome(agent, session).count == len(data)
    outcome = fs(agent, "read", tmp_path / "file", window=1000)
    assert outcome.stdout == data
    assert max(len(frame.body) for frame in outcome.frames if frame.name == "STDOUT") <= 1000


def test_no_input_where_none_is_read(agent: Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    session = fs_start(agent, "read", tmp_path / "fifo")
    agent.send("STDIN", b"x", session)
    assert agent.expect("ERROR", session).body["code"] == "no_stdin"
    agent.send("KILL", None, session)
    assert fs_outcome(agent, session).error[0] == errno.ECANCELED


def test_many_at_once(agent: Client, tmp_path: Path) -> None:
    paths = [tmp_path / f"file{number}" for number in range(100)]
    sessions = [fs_start(agent, "write", path, atomic=True) for path in paths]
    for number, session in enumerate(sessions):
        feed(agent, session, b"%d" % number)
    for session in sessions:
        fs_outcome(agent, session).check()
    assert [path.read_text() for path in paths] == [str(number) for number in range(100)]


def test_helper_that_is_killed_by_others(agent: Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    session = fs_start(agent, "read", tmp_path / "fifo")
    agent.barrier()
    (child,) = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    os.kill(int(child), 9)
    outcome = fs_outcome(agent, session)
    assert outcome.error == (errno.EIO, "")
    assert "signal 9" in outcome.end.body["message"]


def test_shutdown_ends_what_is_open(agent: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    sessions = [fs_start(agent, "write", tmp_path / "file", atomic=True)]
    feed(agent, sessions[0], bytes(3 * WINDOW), end=False)
    os.mkfifo(tmp_path / "fifo")
    sessions.append(fs_start(agent, "read", tmp_path / "fifo"))
    agent.send("SHUTDOWN", {"grace_ms": 10_000})
    list(agent.rest())
    for session in sessions:
        assert fs_outcome(agent, session).error == (errno.ECANCELED, "")
    assert (tmp_path / "file").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["agent.log", "fifo", "file"]
