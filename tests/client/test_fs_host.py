"""Copies between the host's disk and a scripted sandbox: whole or not at all, and nothing left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs
import pytest

from trio_sandbox.client import host_tree
from trio_sandbox.client.fs import SandboxFs
from trio_sandbox.client.fs_records import RecordStream, TreeRecord
from trio_sandbox.client.fs_types import FOLDER, REGULAR, FsCopied
from trio_sandbox.errors import FilesystemError, PathNotFoundError, RemoteProtocolError

from .fakes import STATUS, STDIN_CLOSED, Answer, Event, FakeControl, done, out

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Any:
    """Every test says what is in its folder at the end; descriptors are as they were."""
    os.umask(0o022)
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1  # listdir's own may have another number


def a_file(**changes: Any) -> list[Event]:
    return [done(status=attrs.evolve(STATUS, **changes))]


A_FOLDER = a_file(mode=FOLDER | 0o755)
ROOT = TreeRecord(b"", FOLDER | 0o755, 0).pack()


def record(name: bytes, content: bytes) -> bytes:
    return TreeRecord(name, REGULAR | 0o644, 5, len(content)).pack() + content


# -- how far it is


async def test_progress_is_told_both_ways(tmp_path: Path) -> None:
    told: list[int] = []
    control = FakeControl(a_file(), [out(b"new"), out(b"s"), done()])
    await SandboxFs(control).copy_to_host("/f", tmp_path / "f", on_progress=told.append)
    assert told == [4]
    answers = [out(ROOT), out(record(b"a", b"xyz")), out(record(b"b", b"12")), done()]
    await SandboxFs(FakeControl(A_FOLDER, answers)).copy_to_host("/d", tmp_path / "d", on_progress=told.append)
    assert told[1:] and told[-1] == 5


# -- to the host


async def test_a_file_replaces_a_file_and_not_what_a_link_points_to(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for mode, seen in ((0o104777, 0o755), (0o100600, 0o600)):
        control = FakeControl(a_file(mode=mode), [out(b"new"), out(b"s"), done()])
        assert await SandboxFs(control).copy_to_host("/f", target) == FsCopied(1, 4, 0)
        assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (b"news", seen)
    assert [request.op for request in control.requests] == ["stat", "read"]
    link = tmp_path / "link"
    link.symlink_to(target)
    await SandboxFs(FakeControl(a_file(), [out(b"other"), done()])).copy_to_host("/f", str(link))
    assert (link.is_symlink(), link.read_bytes(), target.read_bytes()) == (False, b"other", b"news")


async def test_a_failed_file_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    fs = SandboxFs(FakeControl(a_file(), [out(b"new"), done(errno.EIO)]))
    with pytest.raises(FilesystemError, match="error"):
        await fs.copy_to_host("/f", target)
    fs = SandboxFs(FakeControl(a_file(), [out(b"new"), done()]))
    with pytest.raises(FilesystemError, match="max_bytes=2"):
        await fs.copy_to_host("/f", target, max_bytes=2)
    assert target.read_text() == "old"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
async def test_only_files_are_replaced(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "t")
    for answers in ((a_file(), [done()]), (A_FOLDER, [out(ROOT), done()])):
        with pytest.raises(FileExistsError):
            await SandboxFs(FakeControl(*answers)).copy_to_host("/f", tmp_path / "t")
    with pytest.raises(FileNotFoundError):
        await SandboxFs(FakeControl(a_file(), [done()])).copy_to_host("/f", tmp_path / "no" / "t")


async def test_a_folder_arrives_whole(tmp_path: Path) -> None:
    data = ROOT + record(b"big", bytes(600_000)) + b"".join(record(b"%d" % n, b"x") for n in range(2000))
    pieces = [out(data[place : place + 65_536]) for place in range(0, len(data), 65_536)]
    control = FakeControl(A_FOLDER, [*pieces, done()])
    copied = await SandboxFs(control).copy_to_host("/d", tmp_path / "t")
    assert copied == FsCopied(entries=2002, size=602_000, skipped=0)
    assert len(os.listdir(tmp_path / "t")) == 2001
    assert (tmp_path / "t" / "7").stat().st_mtime_ns == 5
    assert [request.op for request in control.requests] == ["stat", "pack"]


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ([out(ROOT + record(b"f", b"xyz")), done(errno.EIO)], FilesystemError),
        ([out(ROOT + record(b"f", b"xyz")[:-1]), done()], RemoteProtocolError),
        ([out(ROOT + record(b"../f", b"xyz")), done()], RemoteProtocolError),
        ([out(b"\xc1"), done()], RemoteProtocolError),
        ([done()], RemoteProtocolError),
    ],
)
async def test_a_failed_folder_leaves_nothing(tmp_path: Path, events: list[Event], error: type[Exception]) -> None:
    control = FakeControl(A_FOLDER, events)
    with pytest.raises(error):
        await SandboxFs(control).copy_to_host("/d", tmp_path / "t")
    assert os.listdir(tmp_path) == []
    assert control.opened[1].over


async def test_a_cancel_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    half = [*A_FOLDER], Answer([out(ROOT + record(b"f", bytes(300_000))[:290_000])])
    for name, answers in (("t", half), ("file", (a_file(), Answer([out(bytes(300_000))])))):
        control = FakeControl(*answers)
        with anyio.move_on_after(0.05) as scope:
            await SandboxFs(control).copy_to_host("/d", tmp_path / name)
        assert scope.cancelled_caught
        assert (control.opened[1].killed, control.opened[1].over) == (True, True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


async def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    control = FakeControl(a_file(mode=0o020666), [done()])
    with pytest.raises(FilesystemError, match="neither"):
        await SandboxFs(control).copy_to_host("/dev/zero", tmp_path / "t")
    with pytest.raises(PathNotFoundError):
        await SandboxFs(FakeControl([done(errno.ENOENT)])).copy_to_host("/gone", tmp_path / "t")
    assert os.listdir(tmp_path) == []


# -- from the host


async def test_a_file_of_the_host_is_written_with_its_mode(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(600_000))
    (tmp_path / "f").chmod(0o4750)
    (tmp_path / "link").symlink_to("f")
    control = FakeControl(Answer(after_input=lambda data: [done(count=len(data))]))
    told: list[int] = []
    copied = await SandboxFs(control).copy_from_host(tmp_path / "link", "/f", user="me", on_progress=told.append)
    assert copied == FsCopied(entries=1, size=600_000, skipped=0)
    assert told == sorted(told) and len(told) > 1 and told[-1] == 600_000
    assert attrs.evolve(control.requests[0], deadline_ms=0) == attrs.evolve(
        control.requests[0], op="write", path=b"/f", mode=0o750, atomic=True, fsync=True, user="me", deadline_ms=0
    )
    assert len(control.opened[0].input) == 600_000


async def test_a_folder_of_the_host_travels_without_what_its_links_point_to(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "f").write_bytes(bytes(600_000))
    (folder / "l").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "fifo")
    (tmp_path / "to-d").symlink_to("d")
    control = FakeControl(Answer(after_input=lambda _: [done()]))
    copied = await SandboxFs(control).copy_from_host(tmp_path / "to-d", "to")
    assert copied == FsCopied(entries=3, size=600_000, skipped=1)
    assert (control.requests[0].op, control.requests[0].path) == ("unpack", b"/base/to")
    found = list(RecordStream().feed_untrusted(bytes(control.opened[0].input)))
    records = [(item.name, item.target) for item in found if isinstance(item, TreeRecord)]
    assert records == [(b"", b""), (b"f", b""), (b"l", os.fsencode(tmp_path / "secret"))]


async def test_what_the_host_cannot_read_gives_the_guests_file_up(tmp_path: Path) -> None:
    control = FakeControl(Answer())
    for name, error in (("gone", FileNotFoundError), ("fifo", OSError)):
        if name == "fifo":
            os.mkfifo(tmp_path / name)
        with pytest.raises(error, match=name):
            await SandboxFs(control).copy_from_host(tmp_path / name, "/f")
    assert control.requests == []
    (tmp_path / "d").mkdir()
    for number in range(200):
        os.mkdir("/".join([str(tmp_path), *["d"] * (number + 1)])) if number else None
    with pytest.raises(OSError, match="within each other"):
        await SandboxFs(control).copy_from_host(tmp_path / "d", "/d")
    assert control.opened[0].killed


async def test_the_guests_refusal_is_the_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    for source in (tmp_path, tmp_path / "f"):
        control = FakeControl([STDIN_CLOSED, done(errno.ENOSPC, path=b"/deep")])
        with pytest.raises(FilesystemError, match="/deep") as caught:
            await SandboxFs(control).copy_from_host(source, "/d")
        assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncios_own_cancel_lets_the_thread_end_before_its_files_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def write_slowly(descriptor: int, data: bytes) -> None:
        begun.set()
        assert go_on.wait(20)
        wrote.append(os.write(descriptor, data))  # fails, or goes elsewhere, when somebody closed it meanwhile

    wrote: list[int] = []
    ended: list[BaseException] = []

    async def copy() -> None:
        try:
            await SandboxFs(control).copy_to_host("/d", tmp_path / "t")
        except BaseException as error:
            ended.append(error)
            raise

    monkeypatch.setattr(host_tree, "write_all", write_slowly)
    control = FakeControl(A_FOLDER, [out(ROOT + record(b"f", b"xyz")), done()])
    task = asyncio.ensure_future(copy())
    await anyio.to_thread.run_sync(begun.wait)
    task.cancel()
    asyncio.get_running_loop().call_later(0.05, go_on.set)  # time for another thread to do it too early
    await asyncio.wait([task])
    assert wrote == [3]
    assert [type(error) for error in ended] == [asyncio.CancelledError]
    assert os.listdir(tmp_path) == []
