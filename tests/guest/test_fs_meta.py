"""list, stat, readlink, mkdir, remove, rename, symlink, chmod, chown."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.guest.agent_client import Client
from tests.guest.fs_client import entries, fs, fs_outcome, fs_start

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="changing the user needs root")
STATUS = {
    "mode", "size", "uid", "gid", "nlink", "ino", "dev", "rdev", "atime_ns", "mtime_ns", "ctime_ns", "birth_ns",
}  # fmt: skip


def check_status(status: dict[str, Any], path: Path, follow: bool = False) -> None:
    wanted = path.stat() if follow else path.lstat()  # without the atime: to be read may change that of a link
    for key in ("mode", "size", "uid", "gid", "nlink", "ino", "dev", "rdev", "mtime_ns", "ctime_ns"):
        assert status[key] == getattr(wanted, f"st_{key}"), key
    assert status["birth_ns"] <= status["ctime_ns"]


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A folder with one of each kind."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    (folder / "file").write_bytes(b"12345")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("file")
    (folder / "dangling").symlink_to("../nowhere/" + "x" * 200)
    os.mkfifo(folder / "fifo")
    (folder / os.fsdecode(b"\xff\xfe\n")).write_text("")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    return folder


def test_list(agent: Client, zoo: Path) -> None:
    outcome = fs(agent, "list", zoo)
    found = entries(outcome.stdout)
    assert list(found) == os.listdir(zoo)  # in the folder's order
    assert outcome.count == len(found) == 7
    for name, entry in found.items():
        target = entry.pop("target", None)
        assert set(entry) == STATUS
        check_status(entry, zoo / name)
        assert target == (os.readlink(os.fsencode(zoo / name)) if (zoo / name).is_symlink() else None)


def test_list_what_is_no_folder(agent: Client, zoo: Path) -> None:
    assert fs(agent, "list", zoo / "file").error == (errno.ENOTDIR, str(zoo / "file"))
    assert fs(agent, "list", zoo / "link").error == (errno.ENOTDIR, str(zoo / "link"))
    empty = fs(agent, "list", zoo / "folder")
    assert (empty.stdout, empty.count) == (b"", 0)
    (zoo / "way").symlink_to("folder")
    assert fs(agent, "list", zoo / "way").count == 0


def resident(agent: Client) -> int:
    """KiB that the agent ever had in memory."""
    status = Path(f"/proc/{agent.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def test_large_folder_takes_no_room_in_the_agent(agent: Client, memory_folder: Path) -> None:
    """100,000 entries are 20 MB of maps. They wait in the pipe and the helper for credit, not in the agent."""
    folder = memory_folder / "many"
    folder.mkdir()
    for number in range(100_000):
        if number % 100 == 0:
            os.mkdir(folder / f"{number:06}")
        else:
            os.mknod(folder / f"{number:06}")
    fs(agent, "list", memory_folder).check()
    before = resident(agent)
    outcome = fs(agent, "list", folder)
    assert outcome.count == 100_000
    assert sorted(entries(outcome.stdout)) == [f"{number:06}" for number in range(100_000)]
    assert resident(agent) - before < 2048
    assert fs(agent, "remove_dir", folder, recursive=True).count == 100_001
    assert not folder.exists()


def test_no_credit_stalls_nobody_else(agent: Client, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(2 << 20))
    (tmp_path / "small").write_bytes(b"small")
    agent.auto_credit = False
    stalled = [fs_start(agent, "read", tmp_path / "large", window=1000 * (number + 1)) for number in range(3)]
    assert fs(agent, "read", tmp_path / "small").stdout == b"small"
    assert agent.run(["echo", "alive"]).stdout == b"alive\n"
    for number, session in enumerate(stalled):
        agent.send("KILL", None, session)
        outcome = fs_outcome(agent, session)
        assert outcome.error[0] == errno.ECANCELED
        assert len(outcome.stdout) == 1000 * (number + 1)


def test_stat(agent: Client, zoo: Path) -> None:
    for name in ("file", "folder", "link", "dangling", "fifo", "socket"):
        outcome = fs(agent, "stat", zoo / name)
        assert set(outcome.done["status"]) == STATUS
        check_status(outcome.done["status"], zoo / name)
    check_status(fs(agent, "stat", zoo / "link", follow=True).done["status"], zoo / "link", follow=True)
    assert fs(agent, "stat", zoo / "dangling", follow=True).error == (errno.ENOENT, str(zoo / "dangling"))
    status = fs(agent, "stat", "/dev/null").done["status"]
    assert stat.S_ISCHR(status["mode"])
    assert status["rdev"] == os.makedev(1, 3)


def test_times_before_the_epoch_and_nanoseconds(agent: Client, zoo: Path) -> None:
    os.utime(zoo / "file", ns=(123_456_789_123_456_789, -1_500_000_001))
    status = fs(agent, "stat", zoo / "file").done["status"]
    assert (status["atime_ns"], status["mtime_ns"]) == (123_456_789_123_456_789, -1_500_000_001)


def test_readlink(agent: Client, zoo: Path) -> None:
    assert fs(agent, "readlink", zoo / "link").done["target"] == b"file"
    long = "y" * 4000
    (zoo / "long").symlink_to(long)
    assert fs(agent, "readlink", zoo / "long").done["target"] == long.encode()
    assert fs(agent, "readlink", zoo / "file").error == (errno.EINVAL, str(zoo / "file"))


def test_mkdir(agent: Client, tmp_path: Path) -> None:
    path = tmp_path / "new"
    assert fs(agent, "mkdir", path).done["count"] == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert fs(agent, "mkdir", path).error == (errno.EEXIST, str(path))
    for mode in (0o1777, 0o2750):
        fs(agent, "mkdir", path / f"{mode:o}", mode=mode).check()
        assert stat.S_IMODE((path / f"{mode:o}").stat().st_mode) == mode
    assert fs(agent, "mkdir", path / "a" / "b").error == (errno.ENOENT, str(path / "a" / "b"))


def test_mkdir_with_parents(agent: Client, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c"
    for spelled in (str(path), f"{path}/", f"{tmp_path}//a/./b/../b/c"):
        fs(agent, "mkdir", spelled, recursive=True, mode=0o700).check()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    fs(agent, "mkdir", "/", recursive=True).check()
    (tmp_path / "file").write_text("")
    (tmp_path / "way").symlink_to("a")
    (tmp_path / "dangling").symlink_to("nowhere")
    fs(agent, "mkdir", tmp_path / "way", recursive=True).check()
    fs(agent, "mkdir", tmp_path / "way" / "x" / "y", recursive=True).check()
    for name, code in {"file": errno.EEXIST, "dangling": errno.EEXIST, "file/x": errno.ENOTDIR}.items():
        assert fs(agent, "mkdir", tmp_path / name, recursive=True).error == (code, str(tmp_path / name))
    assert fs(agent, "mkdir", tmp_path / "file" / "x" / "y", recursive=True).error[0] == errno.ENOTDIR


def test_remove(agent: Client, zoo: Path) -> None:
    assert fs(agent, "remove", zoo).error == (errno.EISDIR, str(zoo))
    for name in ("link", "fifo", "socket"):
        fs(agent, "remove", zoo / name).check()
    assert (zoo / "file").read_bytes() == b"12345"
    assert len(os.listdir(zoo)) == 4


def test_rename(agent: Client, zoo: Path) -> None:
    fs(agent, "rename", zoo / "link", to=zoo / "fifo").check()
    assert os.readlink(zoo / "fifo") == "file"
    assert fs(agent, "rename", zoo / "file", to=zoo / "folder").error == (errno.EISDIR, str(zoo / "file"))
    assert fs(agent, "rename", zoo, to=zoo / "folder" / "x").error == (errno.EINVAL, str(zoo))


def test_symlink(agent: Client, tmp_path: Path) -> None:
    fs(agent, "symlink", tmp_path / "new", to="any text, even ../this").check()
    assert os.readlink(tmp_path / "new") == "any text, even ../this"
    assert fs(agent, "symlink", tmp_path / "new", to="x").error == (errno.EEXIST, str(tmp_path / "new"))


def test_chmod(agent: Client, zoo: Path) -> None:
    fs(agent, "chmod", zoo / "link", mode=0o4711, follow=True).check()
    assert stat.S_IMODE((zoo / "file").stat().st_mode) == 0o4711
    fs(agent, "chmod", zoo / "fifo", mode=0).check()
    assert stat.S_IMODE((zoo / "fifo").stat().st_mode) == 0
    assert fs(agent, "chmod", zoo / "link", mode=0o600).error == (errno.EOPNOTSUPP, str(zoo / "link"))


@needs_root
@pytest.mark.parametrize(
    ("owner", "uid", "gid"),
    [("1234", 1234, 0), ("1234:4321", 1234, 4321), (":4321", 0, 4321), ("nobody", 65534, 0), (":daemon", 0, 1)],
)
def test_chown(agent: Client, zoo: Path, owner: str, uid: int, gid: int) -> None:
    fs(agent, "chown", zoo / "link", owner=owner).check()
    assert ((zoo / "link").lstat().st_uid, (zoo / "link").lstat().st_gid) == (uid, gid)
    assert (zoo / "file").stat().st_uid == 0
    fs(agent, "chown", zoo / "link", owner=owner, follow=True).check()
    assert ((zoo / "file").stat().st_uid, (zoo / "file").stat().st_gid) == (uid, gid)


@pytest.mark.parametrize("owner", ["no-such-user", "0:no-such-group", ":", "0:", "4294967295", "x" * 300])
def test_no_such_owner(agent: Client, zoo: Path, owner: str) -> None:
    assert fs(agent, "chown", zoo / "file", owner=owner).error == (errno.EINVAL, str(zoo / "file"))
