"""Files over a scripted sandbox, on both backends: what is asked, what becomes of the answers, what a cancel does."""

from __future__ import annotations

import errno
import os
import pathlib
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import attrs
import pytest

from trio_sandbox.client import session_end
from trio_sandbox.client.fs import SandboxFs
from trio_sandbox.client.fs_types import FsEntryKind
from trio_sandbox.convert import pack_map
from trio_sandbox.errors import (
    ExecFailedError,
    FilesystemError,
    PathNotFoundError,
    RemoteProtocolError,
    SandboxNotRunningError,
)
from trio_sandbox.relay.events import DataReceived, MessageReceived
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Fs,
    Started,
)

from .fakes import STATUS, STDIN_CLOSED, Answer, Event, FakeControl, done, failed, out

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def opened(*answers: Answer | list[Event]) -> tuple[SandboxFs, FakeControl]:
    control = FakeControl(*answers)
    return SandboxFs(control), control


def written(data: bytes) -> list[Event]:
    return [done(count=len(data))]


async def drain(fs: SandboxFs) -> None:
    [_ async for _ in fs.iterdir("d")]


def asked(op: str, path: bytes, to: bytes = b"", **options: Any) -> Fs:
    return Fs(op, path, to, **{"user": "worker", **options})


CALLS: list[tuple[Callable[[SandboxFs], Awaitable[Any]], Fs]] = [
    (lambda fs: fs.read("a"), asked("read", b"/base/a")),
    (lambda fs: fs.read(b"/\xff", offset=3, length=4), asked("read", b"/\xff", offset=3, length=4)),
    (lambda fs: fs.read_stream("/a", length=0), asked("read", b"/a", length=0)),
    (lambda fs: fs.read_text("../\udcff", user="0:5"), asked("read", b"/base/../\xff", user="0:5")),
    (lambda fs: fs.list(pathlib.PurePosixPath("/d")), asked("list", b"/d")),
    (drain, asked("list", b"/base/d")),
    (lambda fs: fs.mkdir("/d"), asked("mkdir", b"/d", recursive=True)),
    (lambda fs: fs.mkdir("/d", mode=0o700, parents=False), asked("mkdir", b"/d", mode=0o700)),
    (lambda fs: fs.remove("/f"), asked("remove", b"/f")),
    (lambda fs: fs.remove_dir("/d"), asked("remove_dir", b"/d", recursive=True)),
    (lambda fs: fs.remove_dir("/d", recursive=False), asked("remove_dir", b"/d")),
    (lambda fs: fs.copy("a", "b"), asked("copy", b"/base/a", b"/base/b", recursive=True)),
    (lambda fs: fs.rename("a", "/b"), asked("rename", b"/base/a", b"/b")),
    (lambda fs: fs.symlink("../x", "/l"), asked("symlink", b"/l", b"../x")),
    (lambda fs: fs.readlink("/l"), asked("readlink", b"/l")),
    (lambda fs: fs.chmod("/f", 0o4755), asked("chmod", b"/f", mode=0o4755)),
    (lambda fs: fs.chown("/f", ":staff", follow=False), asked("chown", b"/f", owner=":staff", follow=False)),
    (lambda fs: fs.stat("/f", follow=False), asked("stat", b"/f", follow=False)),
    (lambda fs: fs.exists("/f"), asked("stat", b"/f")),
    (lambda fs: fs.write("/f", b""), asked("write", b"/f", atomic=True, fsync=True)),
    (lambda fs: fs.write("/f", "", mode=0, atomic=False, fsync=False), asked("write", b"/f", mode=0)),
]


@pytest.mark.parametrize(("call", "request_"), CALLS, ids=lambda value: value.op if isinstance(value, Fs) else "")
async def test_requests(call: Callable[[SandboxFs], Awaitable[Any]], request_: Fs) -> None:
    fs, control = opened([done(status=STATUS)])
    await call(fs)
    assert control.requests == [request_]
    assert not control.opened[0].killed


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda fs: fs.read(""), ValueError, "empty"),
        (lambda fs: fs.read("a\0"), ValueError, "NUL"),
        (lambda fs: fs.read(5), TypeError, "int"),
        (lambda fs: fs.read("/" + "a" * 4096), FilesystemError, "too long"),
        (lambda fs: fs.read("a", offset=-1), ValueError, "offset"),
        (lambda fs: fs.read("a", length=True), ValueError, "length"),
        (lambda fs: fs.read("a", user=""), ValueError, "user"),
        (lambda fs: fs.read("a", user=0), TypeError, "user must be str"),
        (lambda fs: fs.mkdir("a", mode=0o10000), ValueError, "mode"),
        (lambda fs: fs.chmod("a", -1), ValueError, "mode"),
        (lambda fs: fs.chown("a", 5), TypeError, "owner"),
        (lambda fs: fs.rename("a", ""), ValueError, "empty"),
        (lambda fs: fs.write("a", 5), TypeError, "int"),
        (lambda fs: fs.write("a", "\udcff"), UnicodeEncodeError, "surrogates"),
    ],
)
async def test_refused_before_anything_is_sent(call: Any, error: type[Exception], words: str) -> None:
    fs, control = opened([done()])
    with pytest.raises(error, match=words):
        await call(fs)
    assert control.requests == []


async def test_bytes_come_whole_and_in_pieces() -> None:
    fs, _ = opened([out(b"one"), out(b"two"), out(b""), done(count=6)])
    assert await fs.read("a") == b"onetwo"
    async with await fs.read_stream("a") as stream:
        assert [piece async for piece in stream] == [b"one", b"two"]
        assert await stream.collect() == b""
    async with await fs.read_stream("a") as stream:
        assert await anext(stream) == b"one"
        assert await stream.collect() == b"two"
    fs, _ = opened([out(b"\xc3"), out(b"\xbc\r\n"), done()])
    assert await fs.read_text("a") == "ü\r\n"
    fs, _ = opened([out(b"\xff"), done()])
    with pytest.raises(UnicodeDecodeError):
        await fs.read_text("a")


async def test_what_was_written_must_have_been_written() -> None:
    fs, control = opened(Answer(after_input=written))
    await fs.write("a", "ü")
    assert bytes(control.opened[0].input) == "ü".encode()
    fs, _ = opened(Answer(after_input=lambda data: [done(count=len(data) - 1)]))
    for call in (fs.write("a", b"xyz"), _stream(fs, b"xyz")):
        with pytest.raises(RemoteProtocolError, match="2 bytes of 3"):
            await call


async def _stream(fs: SandboxFs, *pieces: bytes) -> None:
    async with await fs.write_stream("a") as sink:
        for piece in pieces:
            await sink.write(piece)


async def test_a_sink_writes_pieces_and_closes_once() -> None:
    fs, control = opened(Answer(after_input=written))
    async with await fs.write_stream("a", mode=0o600) as sink:
        await sink.write(b"one")
        await sink.write(memoryview(bytearray(b"two")))
        await sink.close()
        await sink.close()
        with pytest.raises(anyio.ClosedResourceError):
            await sink.write(b"three")
    session = control.opened[0]
    assert (bytes(session.input), session.killed, session.over) == (b"onetwo", False, True)


async def test_a_sink_gives_the_file_up_when_its_block_fails() -> None:
    fs, control = opened(Answer(after_input=written))
    with pytest.raises(ZeroDivisionError):
        async with await fs.write_stream("a") as sink:
            await sink.write(b"one")
            raise ZeroDivisionError
    assert control.opened[0].killed
    assert control.opened[0].over
    sink = await fs.write_stream("a")
    await sink.abort()
    await sink.close()
    assert control.opened[1].killed


async def test_a_file_with_an_interrupted_write_is_never_put_in_place() -> None:
    class Stuck(FakeControl):
        def open_session(self, request: object) -> Any:
            session = super().open_session(request)
            session.send_stdin = _for_ever  # type: ignore[method-assign, assignment]
            return session

    control = Stuck(Answer(after_input=written))
    with pytest.raises(anyio.BrokenResourceError, match="interrupted"):
        async with await SandboxFs(control).write_stream("a") as sink:
            with anyio.move_on_after(0.01):
                await sink.write(b"one")
    assert control.opened[0].killed


async def _for_ever(_: bytes) -> None:
    await anyio.sleep_forever()


async def test_a_sink_says_why_the_guest_takes_no_more() -> None:
    full = [STDIN_CLOSED, done(errno.ENOSPC, message="disk full", path=b"/base/a")]
    fs, _ = opened(full)
    for call in (fs.write("a", b"x"), _stream(fs, b"x", b"y"), _stream(fs)):
        with pytest.raises(FilesystemError, match="disk full") as caught:
            await call
        assert caught.value.errno == errno.ENOSPC
    fs, _ = opened([STDIN_CLOSED, done()])
    with pytest.raises(RemoteProtocolError, match="named no error"):
        await _stream(fs, b"x")


ENTRY = {"name": b"f", **attrs.asdict(STATUS)}


async def test_folders_come_as_a_list_or_one_by_one() -> None:
    page = pack_map(ENTRY) * 300
    events = [out(page[:70]), out(page[70:7000]), out(page[7000:]), done(count=300)]
    fs, control = opened(events)
    entries = await fs.list("d")
    assert (len(entries), entries[299].path) == (300, "/base/d/f")
    async with fs.iterdir("/d") as stream:
        async for entry in stream:
            assert (entry.path, entry.kind, entry.metadata.inode) == ("/d/f", FsEntryKind.FILE, 77)
            break
    assert control.opened[1].killed
    async with fs.iterdir("/d") as stream:  # begun by nobody
        pass
    assert len(control.opened) == 2
    with pytest.raises(RemoteProtocolError, match="middle"):
        await opened([out(page[:70]), done()])[0].list("d")


async def test_metadata() -> None:
    fs, _ = opened([done(status=attrs.evolve(STATUS, mode=0o104444, mtime_ns=1_700_000_000_123_456_789))])
    found = await fs.stat("f")
    assert (found.kind, found.mode, found.readonly, found.size) == (FsEntryKind.FILE, 0o4444, True, 5)
    assert (found.uid, found.gid, found.nlink, found.inode, found.device) == (1, 2, 1, 77, 3)
    assert (found.modified_ns, found.modified) == (1_700_000_000_123_456_789, 1_700_000_000_123.4568)
    assert (found.accessed, found.changed, found.created, found.created_ns) == (1.5, 3.5, None, None)


@pytest.mark.parametrize(
    ("mode", "kind"), [(0o040755, "directory"), (0o120777, "symlink"), (0o020666, "other"), (0, "other"), (-1, "other")]
)
async def test_kinds(mode: int, kind: str) -> None:
    fs, _ = opened([done(status=attrs.evolve(STATUS, mode=mode))])
    assert (await fs.stat("f")).kind == kind


async def test_links() -> None:
    assert await opened([done(target=b"../\xff")])[0].readlink("l") == "../\udcff"


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR])
async def test_exists_hides_what_is_not_there(number: int) -> None:
    assert not await opened([done(number)])[0].exists("f")


@pytest.mark.parametrize("end", [done(errno.EACCES), done(errno.ELOOP), failed("user_setup_failed", errno.ENOENT)])
async def test_exists_hides_nothing_else(end: Event) -> None:
    with pytest.raises(FilesystemError):
        await opened([end])[0].exists("f")


async def test_errors_carry_errno_and_path() -> None:
    fs, _ = opened([done(errno.ENOENT, message="no such thing", path=b"/deeper/\xff")])
    with pytest.raises(PathNotFoundError, match="no such thing") as caught:
        await fs.read_stream("f")
    error: FilesystemError = caught.value
    assert (error.errno, error.path, error.strerror) == (errno.ENOENT, "/deeper/\udcff", "no such thing")
    fs, _ = opened([done(errno.EACCES)])
    with pytest.raises(FilesystemError, match=os.strerror(errno.EACCES)) as denied:
        await fs.remove("f")
    assert type(denied.value) is FilesystemError
    assert denied.value.path == "/base/f"


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("user_setup_failed", errno.EINVAL),
        ("too_many_sessions", errno.EAGAIN),
        ("out_of_memory", errno.ENOMEM),
        ("bad_args", errno.EINVAL),
        ("news", errno.EIO),
    ],
)
async def test_an_operation_that_never_began(kind: str, number: int) -> None:
    fs, _ = opened([failed(kind, errno.ENOENT)])
    with pytest.raises(FilesystemError, match=kind) as caught:
        await fs.list("d")
    assert (type(caught.value), caught.value.errno, caught.value.path) == (FilesystemError, number, "/base/d")
    assert isinstance(caught.value.__cause__, ExecFailedError)
    assert caught.value.__cause__.kind == kind


async def test_an_operation_too_many_for_this_client() -> None:
    fs, control = opened([done()])
    control.refusal = ExecFailedError("too_many_sessions", errno.EAGAIN, "64 are open")
    with pytest.raises(FilesystemError, match="64 are open") as caught:
        await fs.remove("f")
    assert (caught.value.errno, caught.value.path) == (errno.EAGAIN, "/base/f")


@pytest.mark.parametrize(
    "events",
    [
        [DataReceived(FrameType.STDERR, 1, b"x")],
        [MessageReceived(FrameType.STARTED, 1, 0, Started(7))],
        [out(b"x"), done()],
        [done(-1)],
        [done(4096)],
        [done(count=-1)],
        [done()],
    ],
    ids=str,
)
async def test_a_guest_that_breaks_the_protocol(events: list[Event]) -> None:
    fs, control = opened(Answer(events, after_kill=[done()]))
    with pytest.raises(RemoteProtocolError):
        await fs.stat("f")
    assert control.opened[0].over


async def test_a_machine_that_is_gone() -> None:
    fs, control = opened([done()])
    control.refusal = SandboxNotRunningError("fake")
    with pytest.raises(SandboxNotRunningError):
        await fs.exists("f")


@pytest.mark.parametrize(
    "call",
    [
        lambda fs: fs.read("f"),
        lambda fs: fs.read_stream("f"),
        lambda fs: fs.write("f", bytes(10)),
        lambda fs: _stream(fs, b"x"),
        lambda fs: fs.list("d"),
        lambda fs: fs.remove("f"),
    ],
)
async def test_a_cancel_kills_and_waits_for_the_guests_word(call: Callable[[SandboxFs], Awaitable[Any]]) -> None:
    fs, control = opened(Answer())
    with anyio.move_on_after(0.01) as scope:
        await call(fs)
    assert scope.cancelled_caught
    session = control.opened[0]
    assert (session.killed, session.over) == (True, True)


async def test_a_guest_that_says_nothing_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_end, "KILL_TIMEOUT", 0.01)
    fs, control = opened(Answer(after_kill=[]))
    with anyio.move_on_after(0.01):
        await fs.read("f")
    assert (control.opened[0].killed, control.opened[0].abandoned) == (True, True)


async def test_the_callers_deadline_goes_with_what_ends_within_the_call() -> None:
    fs, control = opened([done(status=STATUS)])
    with anyio.fail_after(60):
        await fs.stat("f")
        await fs.write("f", b"")
        await fs.list("d")
        await fs.read_stream("f")
        await fs.write_stream("f")
        await drain(fs)
    deadlines = [request.deadline_ms for request in control.requests]
    assert all(50_000 < ms <= 60_250 for ms in deadlines[:3])
    assert deadlines[3:] == [0, 0, 0]
