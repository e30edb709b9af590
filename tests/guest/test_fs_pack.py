"""pack and unpack: whole trees as one stream, there and back; and streams that are wrong or hostile."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings

from tests.guest.agent_client import WINDOW, Client
from tests.guest.fs_client import feed, fs, fs_outcome, fs_start, record, records
from trio_sandbox.testing.strategies import FileNode, file_trees

FILE, FOLDER, LINK = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK


def picture(root: bytes) -> dict[bytes, tuple[int, int, object]]:
    """All of a tree that travels."""
    found: dict[bytes, tuple[int, int, object]] = {}

    def look(path: bytes) -> None:
        status = os.lstat(path)
        content: object = None
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                content = file.read()
        else:
            for name in os.listdir(path):
                look(path + b"/" + name)
        found[path[len(root) :]] = status.st_mode, status.st_mtime_ns, content

    look(root)
    return found


@given(tree=file_trees())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_there_and_back(agent: Client, memory_folder: Path, tree: FileNode) -> None:
    source, target = os.fsencode(memory_folder / "source"), os.fsencode(memory_folder / "target")
    try:
        tree.make(source)
        packed = fs(agent, "pack", source)
        found = list(records(packed.stdout))
        before = picture(source)
        assert packed.count == len(found) == len(before)
        assert found[0][0]["name"] == b""
        assert {b"/" * bool(entry["name"]) + entry["name"] for entry, _ in found} == set(before)
        unpacked = fs(agent, "unpack", target, packed.stdout)
        assert unpacked.count == packed.count
        assert picture(target) == before
        # Once more, over what is there by now.
        assert fs(agent, "unpack", target, packed.stdout).count == packed.count
        assert {name: (entry[0], entry[2]) for name, entry in picture(target).items()} == {
            name: (entry[0], entry[2]) for name, entry in before.items()
        }
    finally:
        shutil.rmtree(source, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        agent.seen.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    return path


def test_pack_single_things(agent: Client, folder: Path) -> None:
    (folder / "file").write_bytes(b"data")
    (folder / "link").symlink_to("file")
    os.mkfifo(folder / "fifo")
    ((entry, data),) = records(fs(agent, "pack", folder / "file").stdout)
    assert (entry["name"], entry["size"], data) == (b"", 4, b"data")
    assert entry["mtime_ns"] == (folder / "file").stat().st_mtime_ns
    (folder / "dangling").symlink_to("nowhere")
    (folder / "way").symlink_to(".")
    # What is asked for may be a link, what is in it is sent as it is.
    assert fs(agent, "pack", folder / "link").stdout == fs(agent, "pack", folder / "file").stdout
    assert fs(agent, "pack", folder / "dangling").error == (errno.ENOENT, str(folder / "dangling"))
    found = {entry["name"]: entry["target"] for entry, _ in records(fs(agent, "pack", folder / "way").stdout)}
    assert found == {b"": b"", b"file": b"", b"link": b"file", b"dangling": b"nowhere", b"way": b"."}
    nothing = fs(agent, "pack", folder / "fifo")
    assert (nothing.stdout, nothing.count) == (b"", 0)
    tree = fs(agent, "pack", f"{folder}/")
    assert {entry["name"] for entry, _ in records(tree.stdout)} == set(found)
    assert tree.count == 5
    assert fs(agent, "pack", folder / "gone").error == (errno.ENOENT, str(folder / "gone"))


CRUMB = 8 * 1024
"""Bytes of a window that are not worth a frame."""


def test_pack_keeps_its_promise_of_a_size(agent: Client, folder: Path) -> None:
    """A file that grows is cut; one that becomes shorter while it is sent is an error, and names the file."""
    path = folder / "file"
    path.write_bytes(bytes(4 << 20))
    agent.auto_credit = False
    session = fs_start(agent, "pack", folder, window=WINDOW)
    got = 0
    while got < WINDOW - CRUMB:
        frame = agent.receive()
        got += len(frame.body) if frame.name == "STDOUT" else 0
    path.write_bytes(b"")
    agent.auto_credit = True
    agent.credit(session, got)
    outcome = fs_outcome(agent, session)
    assert outcome.error == (errno.EIO, str(path))
    assert "shorter" in outcome.end.body["message"]
    # What /proc calls empty has content: more than was promised is not sent.
    ((entry, data),) = records(fs(agent, "pack", "/proc/self/status").stdout)
    assert (entry["size"], data) == (0, b"")


def test_names_that_do_not_fit(agent: Client, memory_folder: Path) -> None:
    here = os.open(memory_folder, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("x" * 250, dir_fd=here)
        below = os.open("x" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    outcome = fs(agent, "pack", memory_folder)
    assert outcome.error[0] == errno.ENAMETOOLONG
    assert outcome.error[1].startswith(f"{memory_folder}/xxx")


def unpack(agent: Client, path: Path, *parts: bytes) -> Any:
    return fs(agent, "unpack", path, b"".join(parts))


def test_unpack_without_the_root(agent: Client, folder: Path) -> None:
    assert unpack(agent, folder, record("a", FILE | 0o644, b"A"), record("b", FOLDER | 0o700)).count == 2
    assert (folder / "a").read_bytes() == b"A"
    assert unpack(agent, folder).count == 0
    missing = folder / "missing"
    assert unpack(agent, missing, record("a", FILE)).error == (errno.ENOENT, str(missing))
    assert unpack(agent, folder / "a", record("a", FILE)).error == (errno.ENOTDIR, str(folder / "a"))


def test_unpack_single_things(agent: Client, folder: Path) -> None:
    assert unpack(agent, folder / "file", record("", FILE | 0o640, b"data")).count == 1
    assert (folder / "file").read_bytes() == b"data"
    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o640
    assert unpack(agent, folder / "link", record("", LINK | 0o777, target=b"file")).count == 1
    assert os.readlink(folder / "link") == "file"
    unpack(agent, folder / "link", record("", FILE | 0o600, b"through")).check()
    assert (folder / "file").read_bytes() == b"through"
    assert sorted(os.listdir(folder)) == ["file", "link"]


def test_unpack_keeps_folders_that_are_there(agent: Client, folder: Path) -> None:
    folder.chmod(0o1777)
    (folder / "kept").write_text("kept")
    unpack(agent, folder, record("", FOLDER | 0o700), record("new", FOLDER | 0o711)).check()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o711
    assert (folder / "kept").exists()


def test_folders_that_nobody_may_write_in(agent: Client, open_folder: Path) -> None:
    """Their mode comes last, or their content could not be made; in whatever order the folders come."""
    stream = [record("", FOLDER | 0o500), record("a", FOLDER | 0o500, mtime_ns=7), record("b", FOLDER | 0o500)]
    stream += [record("a/file", FILE | 0o400, b"A"), record("b/file", FILE | 0o400, b"B")]
    keys = {"user": "nobody"} if os.getuid() == 0 else {}
    root = open_folder / "root"
    try:
        assert fs(agent, "unpack", root, b"".join(stream), **keys).count == 5
        assert (root / "a" / "file").read_bytes() == b"A"
        assert stat.S_IMODE((root / "a").stat().st_mode) == 0o500
        assert (root / "a").stat().st_mtime_ns == 7
    finally:
        for path in (root, root / "a", root / "b"):
            path.chmod(0o700)


@pytest.fixture
def trap(folder: Path) -> Iterator[Path]:
    """A tree with a link that leads out of it, to a folder that must stay empty."""
    (folder / "outside").mkdir()
    (folder / "tree").mkdir()
    (folder / "tree" / "way").symlink_to("../outside")
    yield folder / "tree"
    assert os.listdir(folder / "outside") == []
    assert sorted(os.listdir(folder)) == ["outside", "tree"]


def test_no_link_is_followed(agent: Client, trap: Path) -> None:
    through = record("way/file", FILE | 0o600, b"x")
    assert unpack(agent, trap, through).error == (errno.ENOTDIR, str(trap / "way/file"))
    assert unpack(agent, trap, record("way/a/file", FILE)).error == (errno.ELOOP, str(trap / "way/a/file"))
    assert unpack(agent, trap, record("way", FOLDER | 0o700), through).error == (errno.ENOTDIR, str(trap / "way"))
    own = record("own", LINK | 0o777, target=b"../outside")
    assert unpack(agent, trap, own, record("own/file", FILE)).error == (errno.ENOTDIR, str(trap / "own/file"))
    # One that stands where a file comes is replaced, and not written through.
    (trap / "file").symlink_to("../outside/file")
    unpack(agent, trap, record("file", FILE | 0o600, b"x")).check()
    assert not (trap / "file").is_symlink()


@pytest.mark.parametrize(
    "name", ["..", "../x", "/x", "a/../../x", "./x", "a/.", "a//b", "a/", "/", b"nul\0", b"x" * 4097]
)
def test_names_that_lead_out(agent: Client, trap: Path, name: str | bytes) -> None:
    outcome = unpack(agent, trap, record("", FOLDER | 0o755), record("a", FOLDER | 0o755), record(name, FILE, b"x"))
    assert outcome.error == (errno.EBADMSG, str(trap))


def test_folder_and_file_of_one_name(agent: Client, folder: Path) -> None:
    (folder / "folder" / "x").mkdir(parents=True)
    (folder / "file").write_text("old")
    assert unpack(agent, folder, record("folder", FILE, b"x")).error == (errno.EISDIR, str(folder / "folder"))
    assert unpack(agent, folder, record("folder", LINK, target=b"x")).error == (errno.EISDIR, str(folder / "folder"))
    assert unpack(agent, folder, record("file", FOLDER)).error == (errno.ENOTDIR, str(folder / "file"))
    missing = unpack(agent, folder, record("no/file", FILE))
    assert missing.error == (errno.ENOENT, str(folder / "no" / "file"))
    assert (folder / "file").read_text() == "old"
    assert sorted(os.listdir(folder)) == ["file", "folder"]


GOOD = record("", FOLDER | 0o755)


@pytest.mark.parametrize(
    "stream",
    [
        b"\xc1",
        b"garbage",
        b"\xff" * 20_000,
        msgpack.packb({"name": b"x"}),
        msgpack.packb([1, 2]),
        GOOD[:-1],
        GOOD + GOOD,
        GOOD + record("x", 0o644),
        GOOD + record("x", stat.S_IFIFO | 0o644),
        GOOD + record("x", FILE, size=-1),
        GOOD + record("x", FOLDER, size=3) + b"xxx",
        GOOD + record("x", LINK),
        GOOD + record("x", LINK, target=b"nul\0"),
        GOOD + record("x", FILE, target=b"y"),
        GOOD + record("x", FILE, mtime_ns="now"),
        GOOD + record("x", 1 << 20),
        record("", FILE) + record("x", FILE),
        record("x", FILE, unknown=b"z" * 20_000),
    ],
)
def test_streams_that_are_wrong(agent: Client, folder: Path, stream: bytes) -> None:
    outcome = unpack(agent, folder / "new" if stream.startswith(record("", FILE)) else folder, stream)
    assert outcome.error[0] == errno.EBADMSG
    assert "stream" in outcome.end.body["message"]


def test_stream_that_ends_within_a_file(agent: Client, folder: Path) -> None:
    (folder / "file").write_text("old")
    for name in ("file", "new"):
        outcome = unpack(agent, folder, record(name, FILE, size=200_000), b"x" * 150_000)
        assert outcome.error == (errno.EBADMSG, str(folder / name))
    assert (folder / "file").read_text() == "old"
    assert os.listdir(folder) == ["file"]


def test_kill_within_a_file(agent: Client, folder: Path) -> None:
    session = fs_start(agent, "unpack", folder)
    feed(agent, session, GOOD + record("file", FILE, size=1 << 40) + bytes(3 * WINDOW), end=False)
    agent.send("KILL", None, session)
    assert fs_outcome(agent, session).error == (errno.ECANCELED, "")
    assert os.listdir(folder) == []


def test_no_room(agent: Client, small_disk: Path) -> None:
    outcome = unpack(agent, small_disk, GOOD, record("large", FILE | 0o600, bytes(4 << 20)))
    assert outcome.error == (errno.ENOSPC, str(small_disk / "large"))
    assert os.listdir(small_disk) == []


def test_byte_by_byte(agent: Client, folder: Path) -> None:
    stream = GOOD + record("a", FOLDER | 0o755) + record("a/file", FILE | 0o600, b"content") + record("b", FILE | 0o600)
    session = fs_start(agent, "unpack", folder)
    for byte in stream:
        agent.send("STDIN", bytes([byte]), session)
    feed(agent, session, b"")
    assert fs_outcome(agent, session).count == 4
    assert (folder / "a" / "file").read_bytes() == b"content"


def test_many_small_files(agent: Client, memory_folder: Path) -> None:
    stream = GOOD + b"".join(record(f"{number:05}", FILE | 0o644, b"%d" % number) for number in range(20_000))
    assert unpack(agent, memory_folder / "many", stream).count == 20_001
    packed = fs(agent, "pack", memory_folder / "many")
    assert packed.count == 20_001
    content = {entry["name"]: data for entry, data in records(packed.stdout)}
    assert content[b"12345"] == b"12345"
