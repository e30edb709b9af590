"""`sandbox.fs` and the real agent, with the real link between them: the whole way but for the machine."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from trio_sandbox.client.fs import SandboxFs
from trio_sandbox.client.fs_types import FsCopied, FsEntryKind
from trio_sandbox.errors import FilesystemError, PathNotFoundError
from trio_sandbox.relay.budget import Grant
from trio_sandbox.relay.channel import ClientChannel
from trio_sandbox.relay.events import Opener
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.link import AgentLink, Session
from trio_sandbox.relay.messages import (
    Configure,
    Shutdown,
)
from trio_sandbox.service import service

from .running import SANITIZERS

pytestmark = pytest.mark.anyio

CONFIGURE = Configure(1, 1_700_000_000_000_000_000, b"e" * 32, "tester", "0123456789abcdef" * 2, "base", "upper")


@attrs.define
class AgentControl:
    """What `SandboxFs` needs of a sandbox: sessions of one agent."""

    link: AgentLink
    default_workdir: str
    pid: int
    default_user: str = ""

    def open_session(self, request: Opener) -> Session:
        channel = ClientChannel(self.link, 1)
        made: list[Session] = []

        def make(number: int, grant: Grant) -> Session:
            made.append(Session(number, self.link, partial(channel.ended, number)))
            return made[0]

        channel.open(request, make)
        return made[0]

    def helpers(self) -> str:
        """The processes that the agent has started and not reaped."""
        return Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()


@asynccontextmanager
async def served(programs: Path, tmp_path: Path) -> AsyncIterator[tuple[SandboxFs, AgentControl]]:
    """Files below `tmp_path`/guest, which relative paths begin at. The agent must end well afterwards."""
    guest = tmp_path / "guest"
    guest.mkdir(exist_ok=True)
    ours, theirs = socket.socketpair()
    with (tmp_path / "agent.log").open("wb") as stderr, theirs:
        command = [str(programs / "agent"), "--fd", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=stderr, env={**os.environ, **SANITIZERS})
    try:
        async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
            link = AgentLink(stream)
            async with service(link.serve, name="link"):
                await link.machine_message(FrameType.HELLO)
                link.send(CONFIGURE)
                await link.machine_message(FrameType.READY)
                control = AgentControl(link, str(guest), process.pid)
                yield SandboxFs(control), control
                link.send(Shutdown(0))
                await link.machine_message(FrameType.GOODBYE)
        process.wait(20)
    finally:
        process.kill()
        process.wait()
    said = (tmp_path / "agent.log").read_text(errors="replace")
    assert "ERROR: " not in said and "runtime error" not in said, said
    assert process.returncode == 0


async def test_one_file_from_beginning_to_end(programs: Path, tmp_path: Path) -> None:
    async with served(programs, tmp_path) as (fs, _):
        await fs.write("f", "größer", mode=0o640)
        assert (await fs.read_text("f"), await fs.read("f", offset=2, length=2)) == ("größer", "ö".encode())
        found = await fs.stat("f")
        there = (tmp_path / "guest" / "f").stat()
        assert (found.kind, found.size, found.mode) == (FsEntryKind.FILE, 8, 0o640)
        assert (found.modified_ns, found.inode, found.uid) == (there.st_mtime_ns, there.st_ino, there.st_uid)
        await fs.chmod("f", 0o4711)
        assert (await fs.stat("f")).mode == 0o4711
        await fs.copy("f", "g")
        await fs.rename("g", "h")
        assert (await fs.exists("f"), await fs.exists("g"), await fs.exists("h")) == (True, False, True)
        await fs.remove("h")
        await fs.write(b"odd\xff", b"")
        assert sorted(entry.name for entry in await fs.list(".")) == ["f", "odd\udcff"]
        assert await fs.read("odd\udcff") == b""


async def test_links(programs: Path, tmp_path: Path) -> None:
    async with served(programs, tmp_path) as (fs, _):
        await fs.write("f", "old", mode=0o600)
        await fs.symlink("f", "link")
        await fs.symlink("nowhere", "dangling")
        assert await fs.readlink("link") == "f"
        await fs.write("link", "new")
        assert (await fs.read("f"), (await fs.stat("f")).mode) == (b"new", 0o600)
        assert (await fs.stat("link", follow=False)).kind is FsEntryKind.SYMLINK
        assert not await fs.exists("dangling")
        assert await fs.exists("dangling", follow=False)
        targets = {entry.name: entry.target for entry in await fs.list(".")}
        assert targets == {"f": None, "link": "f", "dangling": "nowhere"}


async def test_folders(programs: Path, tmp_path: Path) -> None:
    async with served(programs, tmp_path) as (fs, _):
        await fs.mkdir("a/b/c")
        await fs.mkdir("a/b/c")
        with pytest.raises(FilesystemError) as caught:
            await fs.mkdir("a/b", parents=False)
        assert caught.value.errno == errno.EEXIST
        await fs.write("a/b/f", "x")
        await fs.copy("a", "copy")
        assert await fs.read("copy/b/f") == b"x"
        with pytest.raises(FilesystemError) as caught:
            await fs.remove_dir("a", recursive=False)
        assert caught.value.errno == errno.ENOTEMPTY
        await fs.remove_dir("a")
        assert os.listdir(tmp_path / "guest") == ["copy"]


async def test_errors_name_the_file_and_the_number(programs: Path, tmp_path: Path) -> None:
    async with served(programs, tmp_path) as (fs, _):
        gone = str(tmp_path / "guest" / "gone")
        for call in (fs.read("gone"), fs.read_stream("gone"), fs.list("gone"), fs.remove("gone"), fs.stat("gone")):
            with pytest.raises(PathNotFoundError) as caught:
                await call
            assert (caught.value.errno, caught.value.path) == (errno.ENOENT, gone)
        await fs.write("f", "")
        assert not await fs.exists("f/below")
        numbers = []
        for wrong in (
            fs.read("."),
            fs.list("f"),
            fs.write(".", ""),
            fs.readlink("f"),
            fs.read("f", user="no-such-user"),
        ):
            with pytest.raises(FilesystemError) as other:
                await wrong
            numbers.append(other.value.errno)
        assert numbers == [errno.EISDIR, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EINVAL]


async def test_streams_of_any_size(programs: Path, tmp_path: Path) -> None:
    piece, digest = os.urandom(1 << 20), hashlib.sha256()
    async with served(programs, tmp_path) as (fs, _):
        async with await fs.write_stream("big") as sink:
            for _ in range(8):
                await sink.write(piece)
        async with await fs.read_stream("big") as stream:
            async for part in stream:
                digest.update(part)
        assert digest.digest() == hashlib.sha256(piece * 8).digest()
        async with await fs.read_stream("big") as stream:
            await anext(stream)
        with pytest.raises(ZeroDivisionError):
            async with await fs.write_stream("big") as sink:
                await sink.write(piece)
                raise ZeroDivisionError
        assert (await fs.stat("big")).size == 8 << 20
        assert os.listdir(tmp_path / "guest") == ["big"]


async def test_a_large_folder(programs: Path, tmp_path: Path) -> None:
    guest = tmp_path / "guest"
    guest.mkdir()
    for number in range(3000):
        (guest / f"{number}").touch()
    async with served(programs, tmp_path) as (fs, _):
        assert {entry.name for entry in await fs.list(".")} == {f"{number}" for number in range(3000)}
        async with fs.iterdir(guest) as entries:
            async for entry in entries:
                assert entry.path == f"{guest}/{entry.name}"
                break


def make_tree(root: Path) -> None:
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "big").write_bytes(os.urandom(700_000))
    (root / "after").mkdir()
    (root / "after" / "script").touch(0o755)
    (root / os.fsdecode(b"odd\xff")).write_text("x")
    (root / "link").symlink_to("deep/er")
    for number in range(300):
        (root / "deep" / f"{number}").write_text(f"{number}")


def tree(root: Path) -> dict[str, object]:
    """What is in a tree, with modes, and times of what is no link."""
    found: dict[str, object] = {}
    for path in (root, *root.rglob("*")):
        status = path.lstat()
        link = path.is_symlink()
        content = os.readlink(path) if link else path.is_file() and path.read_bytes()
        found[str(path.relative_to(root))] = (status.st_mode, not link and status.st_mtime_ns, content)
    return found


async def test_a_tree_goes_to_the_guest_and_comes_back(programs: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_tree(source)
    entries = len(tree(source))
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file() and not path.is_symlink())
    async with served(programs, tmp_path) as (fs, _):
        assert await fs.copy_from_host(source, "in") == FsCopied(entries, size, 0)
        assert tree(tmp_path / "guest" / "in") == tree(source)
        assert await fs.copy_to_host("in", tmp_path / "back", symlinks=True) == FsCopied(entries, size, 0)
        assert tree(tmp_path / "back") == tree(source)
        await fs.symlink("in", "by-link")
        assert await fs.copy_to_host("by-link", tmp_path / "plain") == FsCopied(entries - 1, size, 1)
        assert tree(tmp_path / "plain") == {name: facts for name, facts in tree(source).items() if name != "link"}


async def test_single_files_between_host_and_guest(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(700_000))
    (tmp_path / "f").chmod(0o750)
    async with served(programs, tmp_path) as (fs, _):
        assert await fs.copy_from_host(tmp_path / "f", "f") == FsCopied(1, 700_000, 0)
        assert (await fs.stat("f")).mode == 0o750
        assert await fs.copy_to_host("f", tmp_path / "back") == FsCopied(1, 700_000, 0)
        assert stat.S_IMODE((tmp_path / "back").stat().st_mode) == 0o750
        assert (await fs.copy_to_host("/proc/self/status", tmp_path / "status")).size > 100
        with pytest.raises(FilesystemError, match="neither"):
            await fs.copy_to_host("/dev/zero", tmp_path / "zero")
        with pytest.raises(FilesystemError, match="max_bytes"):
            await fs.copy_to_host("f", tmp_path / "big", max_bytes=1000)
        assert sorted(os.listdir(tmp_path)) == ["agent.log", "back", "f", "guest", "status"]


class CancelAtStep(trio.abc.Instrument):
    """Cancels the scope when the task has made so many steps."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self.task = trio.lowlevel.current_task()
        self.scope = scope
        self.left = steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


async def cancel_everywhere(operation: Callable[[], Awaitable[object]], check: Callable[[], None]) -> int:
    """Cancel the operation at its 1st, 2nd, … step until it survives, and check each time; how often it was hit."""
    steps = 0
    while True:
        steps += 1
        with trio.CancelScope() as scope:
            probe = CancelAtStep(scope, steps)
            trio.lowlevel.add_instrument(probe)
            try:
                await operation()
            finally:
                trio.lowlevel.remove_instrument(probe)
        check()
        if not scope.cancelled_caught:
            return steps


async def test_a_cancel_at_any_moment_leaves_no_part_and_no_process(programs: Path, tmp_path: Path) -> None:
    guest, content = tmp_path / "guest", bytes(600_000)
    async with served(programs, tmp_path) as (fs, control):
        await fs.write("f", content)
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "f").write_bytes(content)
        (tmp_path / "taken").mkdir()

        async def stream() -> None:
            async with await fs.write_stream("f") as sink:
                for _ in range(2):
                    await sink.write(bytes(400_000))

        def check() -> None:
            assert control.helpers() == ""
            assert os.listdir(guest) == ["f"]
            assert (guest / "f").stat().st_size in (600_000, 800_000)
            assert [name for name in os.listdir(tmp_path / "taken") if name.startswith(".")] == []

        def afresh() -> Path:
            return tmp_path / "taken" / os.urandom(8).hex()

        operations: list[Callable[[], Awaitable[object]]] = [
            lambda: fs.read("f"),
            lambda: fs.write("f", content),
            stream,
            lambda: fs.copy_to_host("f", afresh()),
            lambda: fs.copy_to_host(".", afresh()),
        ]
        for operation in operations:
            assert await cancel_everywhere(operation, check) > 3
