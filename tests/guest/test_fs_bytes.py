"""read and write: bytes of files, what is no ordinary file, and how a write is all or nothing."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
from pathlib import Path

import pytest

from tests.guest.agent_client import BODY_MAX, END, WINDOW, Client
from tests.guest.fs_client import feed, fs, fs_outcome, fs_start
from tests.processes import ended

as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs other users, or mounts")
DATA = random.Random(2).randbytes(3_000_000)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Empty: the agent's log is elsewhere."""
    path = tmp_path / "folder"
    path.mkdir()
    return path


def only(folder: Path, *names: str) -> bool:
    """Whether the folder holds these names, and no temporary file beside them."""
    return sorted(os.listdir(folder)) == sorted(names)


def test_read_whole(agent: Client, folder: Path) -> None:
    (folder / "file").write_bytes(DATA)
    outcome = fs(agent, "read", folder / "file")
    assert outcome.stdout == DATA
    assert outcome.count == len(DATA)
    assert outcome.end.body["status"] is None
    assert outcome.names == ["STDOUT", "DONE"]


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 0), (0, 10), (5, -1), (2_999_990, 100), (3_000_000, -1), (4_000_000, 5), (70_000, 200_001)],
)
def test_read_part(agent: Client, folder: Path, offset: int, length: int) -> None:
    (folder / "file").write_bytes(DATA)
    outcome = fs(agent, "read", folder / "file", offset=offset, length=length)
    wanted = DATA[offset:] if length < 0 else DATA[offset : offset + length]
    assert outcome.stdout == wanted
    assert outcome.count == len(wanted)


def test_read_what_cannot_be_spliced(agent: Client) -> None:
    assert fs(agent, "read", "/proc/self/status").stdout.startswith(b"Name:\t")
    assert fs(agent, "read", "/dev/zero", length=300_000).stdout == bytes(300_000)


@pytest.mark.parametrize("op", ["read", "write", "list", "stat", "readlink", "remove", "remove_dir", "rename", "chmod"])
def test_what_is_missing(agent: Client, folder: Path, op: str) -> None:
    keys: dict[str, object] = {"to": folder / "x", "mode": 0o600}
    missing = folder / "no" / "such"
    assert fs(agent, op, missing, b"" if op == "write" else None, **keys).error == (errno.ENOENT, str(missing))
    (folder / "no").write_text("")
    assert fs(agent, op, missing, b"" if op == "write" else None, **keys).error == (errno.ENOTDIR, str(missing))


def test_folders_have_no_bytes(agent: Client, folder: Path) -> None:
    for atomic in (False, True):
        for path in (str(folder), f"{folder}/", f"{folder}/.", "/", f"{folder}/new/"):
            outcome = fs(agent, "write", path, b"x", atomic=atomic)
            assert outcome.error == (errno.EISDIR, path)
    assert fs(agent, "read", folder).error == (errno.EISDIR, str(folder))
    assert only(folder)


def test_fifo_blocks_its_own_call_only(agent: Client, folder: Path) -> None:
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    blocked = fs_start(agent, "read", fifo)
    (folder / "file").write_bytes(b"other")
    assert fs(agent, "read", folder / "file").stdout == b"other"
    fifo.write_bytes(b"at last")
    assert fs_outcome(agent, blocked).stdout == b"at last"


def test_no_offset_in_a_fifo(agent: Client, folder: Path) -> None:
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    keep = os.open(fifo, os.O_RDWR)
    os.write(keep, b"abcdef")
    assert fs(agent, "read", fifo, offset=1).error == (errno.ESPIPE, str(fifo))
    assert fs(agent, "read", fifo, offset=0, length=4).stdout == b"abcd"
    os.close(keep)


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("fsync", [False, True])
def test_write_new(agent: Client, folder: Path, atomic: bool, fsync: bool) -> None:
    path = folder / "file"
    outcome = fs(agent, "write", path, DATA, atomic=atomic, fsync=fsync)
    assert outcome.count == len(DATA)
    assert path.read_bytes() == DATA
    assert mode_of(path) == 0o644
    assert only(folder, "file")


@pytest.mark.parametrize("atomic", [False, True])
def test_write_nothing_and_mode(agent: Client, folder: Path, atomic: bool) -> None:
    path = folder / "file"
    assert fs(agent, "write", path, b"", atomic=atomic, mode=0o606).count == 0
    assert (path.read_bytes(), mode_of(path)) == (b"", 0o606)
    fs(agent, "write", path, b"more", atomic=atomic, mode=0o777)  # the mode is for a new file
    assert (path.read_bytes(), mode_of(path)) == (b"more", 0o606)
    fs(agent, "write", path, b"x", atomic=atomic)
    assert path.read_bytes() == b"x"


def test_atomic_write_replaces_the_file_and_in_place_does_not(agent: Client, folder: Path) -> None:
    path, other_name = folder / "file", folder / "hard"
    path.write_bytes(b"old")
    os.link(path, other_name)
    fs(agent, "write", path, b"new", atomic=True)
    assert (path.read_bytes(), other_name.read_bytes()) == (b"new", b"old")
    os.unlink(path)
    os.link(other_name, path)
    fs(agent, "write", path, b"new")
    assert other_name.read_bytes() == b"new"


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("fsync", [False, True])
def test_write_through_links(agent: Client, folder: Path, atomic: bool, fsync: bool) -> None:
    far = folder / "far"
    far.mkdir()
    (far / "target").write_bytes(b"old")
    (far / "target").chmod(0o640)
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to(far / "target")
    (folder / "dangling").symlink_to("far/created")
    fs(agent, "write", folder / "one", b"new", atomic=atomic, fsync=fsync).check()
    fs(agent, "write", folder / "dangling", b"made", atomic=atomic, fsync=fsync).check()
    assert (far / "target").read_bytes() == b"new"
    assert mode_of(far / "target") == 0o640
    assert (far / "created").read_bytes() == b"made"
    assert (folder / "one").is_symlink()
    assert (folder / "dangling").is_symlink()
    assert only(far, "target", "created")
    assert only(folder, "far", "one", "two", "dangling")


@pytest.mark.parametrize("atomic", [False, True])
def test_links_in_a_circle(agent: Client, folder: Path, atomic: bool) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    assert fs(agent, "write", folder / "a", b"", atomic=atomic).error == (errno.ELOOP, str(folder / "a"))
    (folder / "c").symlink_to("gone/c")
    assert fs(agent, "write", folder / "c", b"", atomic=atomic).error == (errno.ENOENT, str(folder / "c"))


def test_devices_and_fifos_are_written_in_place(agent: Client, folder: Path) -> None:
    assert fs(agent, "write", "/dev/null", DATA, atomic=True, fsync=True).count == len(DATA)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    session = fs_start(agent, "write", fifo, atomic=True)
    with ended(subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE)) as reader:
        feed(agent, session, b"through")
        assert fs_outcome(agent, session).count == 7
        assert reader.communicate()[0] == b"through"
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@as_root
@pytest.mark.parametrize("fsync", [False, True])
def test_atomic_write_keeps_the_owner(agent: Client, folder: Path, fsync: bool) -> None:
    path = folder / "file"
    path.write_bytes(b"old")
    os.chown(path, 1234, 4321)
    path.chmod(0o4751)
    fs(agent, "write", path, b"new", atomic=True, fsync=fsync).check()
    status = path.stat()
    assert (path.read_bytes(), status.st_uid, status.st_gid) == (b"new", 1234, 4321)
    assert stat.S_IMODE(status.st_mode) == 0o4751


@as_root
def test_owner_that_cannot_be_kept_is_an_error(agent: Client, open_folder: Path) -> None:
    path = open_folder / "file"
    path.write_bytes(b"root's")
    path.chmod(0o666)
    outcome = fs(agent, "write", path, b"nobody's", atomic=True, user="nobody")
    assert outcome.error == (errno.EPERM, str(path))
    assert "owner" in outcome.end.body["message"]
    assert path.read_bytes() == b"root's"
    assert only(open_folder, "file")
    fs(agent, "write", path, b"nobody's", user="nobody").check()
    assert path.read_bytes() == b"nobody's"


@pytest.mark.parametrize("atomic", [False, True])
def test_no_room_while_the_host_still_sends(agent: Client, small_disk: Path, atomic: bool) -> None:
    path = small_disk / "file"
    session = fs_start(agent, "write", path, atomic=atomic)
    feed(agent, session, bytes(8 << 20))
    outcome = fs_outcome(agent, session)
    assert outcome.error == (errno.ENOSPC, str(path))
    assert outcome.end.body["message"] == "No space left on device"
    assert outcome.end.body["count"] <= 1 << 20
    assert "STDIN_CLOSED" in outcome.names
    assert only(small_disk, *([] if atomic else ["file"]))


def test_full_device(agent: Client) -> None:
    outcome = fs(agent, "write", "/dev/full", b"x")
    assert outcome.error == (errno.ENOSPC, "/dev/full")


def test_early_error_and_input_that_is_never_ended(agent: Client, folder: Path) -> None:
    """What the host still sends after STDIN_CLOSED is dropped and paid for; DONE does not wait for END."""
    session = fs_start(agent, "write", folder)
    agent.send("STDIN", b"x" * BODY_MAX, session)
    outcome = fs_outcome(agent, session)
    assert outcome.error == (errno.EISDIR, str(folder))
    assert "STDIN_CLOSED" in outcome.names
    agent.send("STDIN", b"y", session, flags=END)
    assert agent.barrier() == []


def test_kill_leaves_the_target_and_nothing_else(agent: Client, folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"old")
    session = fs_start(agent, "write", path, atomic=True)
    feed(agent, session, bytes(3 * WINDOW), end=False)  # more than window and pipe hold: the helper is at it
    assert len(os.listdir(folder)) == 2
    agent.send("KILL", None, session)
    outcome = fs_outcome(agent, session)
    assert outcome.error == (errno.ECANCELED, "")
    assert path.read_bytes() == b"old"
    assert only(folder, "file")


def test_kill_of_a_new_file(agent: Client, folder: Path) -> None:
    session = fs_start(agent, "write", folder / "file", atomic=True)
    feed(agent, session, bytes(3 * WINDOW), end=False)
    agent.send("CLIENT_GONE")
    assert fs_outcome(agent, session).error == (errno.ECANCELED, "")
    assert only(folder)


def test_deadline_ends_a_blocked_call(agent: Client, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    assert fs(agent, "read", folder / "fifo", deadline_ms=1).error == (errno.ECANCELED, "")
    session = fs_start(agent, "read", folder / "fifo")
    agent.send("DEADLINE", {"deadline_ms": 1}, session)
    assert fs_outcome(agent, session).error == (errno.ECANCELED, "")
