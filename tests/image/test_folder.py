"""Folders of the host as root file systems: all that is in them arrives, nothing is written, and limits hold."""

from __future__ import annotations

import errno
import io
import os
import socket
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_sandbox.client.image import Image
from trio_sandbox.errors import ImageNotFoundError, InvalidImageError
from trio_sandbox.home import Home
from trio_sandbox.image import folder as folder_module
from trio_sandbox.image import folder_root
from trio_sandbox.image.cache.leases import leased
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.folder import FolderChanged, Found, look, open_folder, write_folder
from trio_sandbox.image.folder_root import KEPT, prepare_folder
from trio_sandbox.image.limits import DEFAULT_LIMITS, Limits
from trio_sandbox.image.pinned import pin, pinned
from trio_sandbox.image.progress import Meter
from trio_sandbox.image.root import prepare_root
from trio_sandbox.image_source import ImageSource

pytestmark = pytest.mark.anyio
NO_METER = Meter(threaded=False)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a bit of everything."""
    root = tmp_path / "tree"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "program").write_bytes(b"\x7fELF" + bytes(100))
    (root / "bin" / "program").chmod(0o4755)
    (root / "bin" / "same").hardlink_to(root / "bin" / "program")
    (root / "absolute").symlink_to("/etc/shadow")
    (root / "dangling").symlink_to("../../../nowhere")
    (root / "empty").mkdir(mode=0o1777)
    (root / "empty").chmod(0o1777)
    (root / "none").touch(0o600)
    os.mkfifo(root / "fifo")
    (root / ".wh.file").write_text("a name like any other here")
    (root / ("long" * 60)).write_text("long")
    deep = root.joinpath(*["deep" * 20] * 4)
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    (root / os.fsdecode(b"not\xffutf8\n")).write_text("bytes")
    with (root / "sparse").open("wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"data")
    os.setxattr(root / "none", "user.mark", b"\0value")
    os.utime(root / "none", ns=(10**18, 1_234_567_890 * 10**9))
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(root / "socket"))
    return root


def written(root: Path, limits: Limits = DEFAULT_LIMITS) -> bytes:
    sink = Memory()
    with opened(root) as descriptor:
        write_folder(descriptor, sink, limits, NO_METER)
    return bytes(sink.data)


@contextmanager
def opened(root: Path) -> Iterator[int]:
    descriptor = open_folder(root)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class Memory:
    """A sink."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self.data += data


def packed(archive: bytes) -> dict[str, tuple[object, ...]]:
    """What a tar archive holds, by name, as Python's own reader sees it."""
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for entry in tar:
            real = tar._find_link_target(entry) if entry.islnk() else entry  # type: ignore[attr-defined]
            content = tar.extractfile(entry).read() if real.isreg() else b""  # type: ignore[union-attr]
            marks = {key: text for key, text in real.pax_headers.items() if key.startswith("SCHILY.xattr")}
            kind = stat.S_IFMT(tar_mode(real))
            facts = (kind, real.mode, real.uid, real.gid, int(real.mtime), content, real.linkname * real.issym(), marks)
            found[entry.name.removeprefix("./").rstrip("/") or "."] = facts
    return found


def tar_mode(entry: tarfile.TarInfo) -> int:
    kinds = {
        tarfile.REGTYPE: stat.S_IFREG,
        tarfile.DIRTYPE: stat.S_IFDIR,
        tarfile.SYMTYPE: stat.S_IFLNK,
        tarfile.FIFOTYPE: stat.S_IFIFO,
        tarfile.CHRTYPE: stat.S_IFCHR,
        tarfile.BLKTYPE: stat.S_IFBLK,
    }
    return kinds[entry.type]


def there(root: Path) -> dict[str, tuple[object, ...]]:
    """The same of a folder."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (root, *sorted(root.rglob("*"))):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFSOCK:
            continue
        content = path.read_bytes() if kind == stat.S_IFREG else b""
        link = os.readlink(path) if kind == stat.S_IFLNK else ""
        names = os.listxattr(path, follow_symlinks=False)
        marks = {f"SCHILY.xattr.{name}": os.getxattr(path, name).decode() for name in names if name.startswith("user.")}
        owner = (status.st_uid, status.st_gid, int(status.st_mtime))
        found[str(path.relative_to(root))] = (kind, stat.S_IMODE(status.st_mode), *owner, content, link, marks)
    return found


def stamps(root: Path) -> list[tuple[int, ...]]:
    """All that reading or writing could change, but for when a link was read, which the kernel notes in any case."""
    found = []
    for path in (root, *sorted(root.rglob("*"))):
        status = path.lstat()
        read = 0 if path.is_symlink() else status.st_atime_ns
        found.append((*folder_module.facts_of(status), status.st_nlink, read))
    return found


def test_all_that_is_in_it_is_packed_and_nothing_is_written(tree: Path) -> None:
    before = stamps(tree)
    archive = written(tree)
    assert stamps(tree) == before
    assert packed(archive) == there(tree)
    assert {"bin/program", "bin/same", ".wh.file", "sparse"} <= packed(archive).keys()
    assert archive.count(b"\x7fELF") == 1  # under its second name it is a link


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices and capabilities")
def test_what_only_root_can_make(tree: Path) -> None:
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(tree / "bin" / "program", "security.capability", capability)
    os.setxattr(tree / "bin" / "program", "trusted.overlay.opaque", b"y")
    os.chown(tree / "none", 123456, 7)
    with tarfile.open(fileobj=io.BytesIO(written(tree))) as tar:
        null, program, none = (tar.getmember(name) for name in ("null", "bin/program", "none"))
    assert (null.type, null.devmajor, null.devminor) == (tarfile.CHRTYPE, 1, 3)
    assert (none.uid, none.gid) == (123456, 7)
    assert program.pax_headers.keys() & {"SCHILY.xattr.security.capability", "SCHILY.xattr.trusted.overlay.opaque"} == {
        "SCHILY.xattr.security.capability"
    }


async def test_the_squashfs_holds_it(tree: Path, home: Home) -> None:
    (tree / os.fsdecode(b"not\xffutf8\n")).unlink()  # the tool below cannot say such a name
    root = await prepare_folder("./tree", tree, home)
    archive = subprocess.run(["sqfs2tar", root.path], check=True, capture_output=True).stdout  # noqa: ASYNC221
    found, expected = packed(archive), there(tree)
    assert {name: facts[:7] for name, facts in found.items() if name != "."} == {
        name: facts[:7] for name, facts in expected.items() if name != "."
    }
    assert (root.reference, root.is_folder, root.config.env) == ("./tree", True, ())


def test_other_file_systems_are_not_entered() -> None:
    inner = Path("/dev/shm")
    assert inner.stat().st_dev != Path("/dev").stat().st_dev
    with opened(Path("/dev")) as root:
        found = [one.path for one in folder_module._Walk(DEFAULT_LIMITS, NO_METER).through(root)]
    assert b"shm" in found and b"null" in found
    assert not any(path.startswith((b"shm/", b"pts/")) for path in found)


# -- what is there already


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each time that a folder is packed."""
    found: list[int] = []

    def counted(*arguments: object) -> None:
        found.append(1)
        write_folder(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(folder_root, "write_folder", counted)
    return found


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda root: (root / "none").write_text("x"),
    "content of the same size": lambda root: (root / "long").write_text("LONG"),
    "mode": lambda root: (root / "none").chmod(0o640),
    "time": lambda root: os.utime(root / "none", (1, 1)),
    "attribute": lambda root: os.setxattr(root / "none", "user.mark", b"other"),
    "new": lambda root: (root / "new").touch(),
    "gone": lambda root: (root / "none").unlink(),
    "renamed": lambda root: (root / "none").rename(root / "else"),
    "link": lambda root: (root / "another").hardlink_to(root / "none"),
}


async def test_a_folder_is_packed_once(tree: Path, home: Home, packings: list[int]) -> None:
    first = await prepare_folder("x", tree, home)
    assert (await prepare_folder("y", tree, home)).chain_id == first.chain_id
    assert len(packings) == 1


@pytest.mark.parametrize("what", CHANGES)
async def test_a_folder_that_changed_is_packed_anew(tree: Path, home: Home, packings: list[int], what: str) -> None:
    (tree / "long").write_text("long")
    first = await prepare_folder("x", tree, home)
    CHANGES[what](tree)
    second = await prepare_folder("x", tree, home)
    assert first.chain_id != second.chain_id
    assert len(packings) == 2 and second.path.exists()


async def test_what_changes_at_once_after_it_was_packed_is_seen(tree: Path, home: Home) -> None:
    """Within one tick of the clock the times of a file may stay what they are, so nothing that young is believed."""
    for text in ("aaaa", "bbbb", "cccc"):
        (tree / "fresh").write_text(text)
        root = await prepare_folder("x", tree, home)
        archive = subprocess.run(["sqfs2tar", root.path], check=True, capture_output=True).stdout  # noqa: ASYNC221
        assert text.encode() in archive


@pytest.mark.parametrize(("age", "is_believed"), [(0.0, False), (0.04, False), (0.06, True), (60.0, True)])
def test_nothing_that_changed_just_now_is_believed(
    tree: Path, monkeypatch: pytest.MonkeyPatch, age: float, is_believed: bool
) -> None:
    with opened(tree) as root:
        newest_ns = look(root, DEFAULT_LIMITS, NO_METER).newest_ns
        monkeypatch.setattr(time, "time", lambda: newest_ns / 1e9 + age)
        clock = MockClock(autojump_threshold=0)
        trio.run(folder_root._settled, root, DEFAULT_LIMITS, clock=clock)
    assert (clock.current_time() == 0) == is_believed


async def test_few_packed_folders_are_kept_and_those_that_are_needed(tree: Path, home: Home) -> None:
    needed = await prepare_folder("x", tree, home)
    sandbox = home.folder("sandboxes", "stays")
    pin(sandbox, needed)
    made = []
    notes = home.folder("cache", "folders")
    for number in range(KEPT + 2):
        (tree / "number").write_text(str(number))
        made.append((await prepare_folder("x", tree, home)).path)
    assert all(path.exists() for path in made)  # somebody may be about to boot from any of them
    for age, path in enumerate(reversed(made), 100):
        os.utime(notes / path.name.partition(".")[0], (time.time() - age,) * 2)
    await prepare_folder("x", tree, home)
    assert [path.exists() for path in made] == [False] * 2 + [True] * KEPT
    with leased(home) as lease:
        assert (await pinned(sandbox, home, lease)).path == needed.path
    assert len(list(notes.iterdir())) == KEPT + 1
    assert len(list(home.rootfs.iterdir())) == KEPT + 1


# -- what changes while it is read


def walk_and(root: Path, act: Callable[[Found], object]) -> None:
    with opened(root) as descriptor:
        for found in folder_module._Walk(DEFAULT_LIMITS, NO_METER).through(descriptor):
            act(found)


def test_a_folder_that_becomes_a_link_is_not_followed(tree: Path) -> None:
    def swap(found: Found) -> None:
        if found.path == b"bin":
            (tree / "bin").rename(tree / "old")
            (tree / "bin").symlink_to("/etc")

    with pytest.raises(FolderChanged):
        walk_and(tree, swap)


def test_a_folder_in_the_place_of_another_is_not_entered(tree: Path) -> None:
    def swap(found: Found) -> None:
        if found.path == b"bin":
            (tree / "bin").rename(tree / "old")
            (tree / "bin").mkdir()

    with pytest.raises(FolderChanged):
        walk_and(tree, swap)


@attrs.define
class Meddler(Meter):
    """Does something when the reading has come so far."""

    act: Callable[[], object] = print
    at: int = 1 << 20
    threaded: bool = False

    def add(self, amount: int, done: int | None = None) -> None:
        self.done += amount
        if self.done >= self.at:
            self.act()
            self.at = 1 << 62


@pytest.mark.parametrize("how", ["grown", "cut", "rewritten"])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, how: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(b"x" * (4 << 20))

    def change() -> None:
        with (root / "file").open("r+b") as file:
            file.seek(0, os.SEEK_END if how == "grown" else os.SEEK_SET)
            file.truncate(2 << 20) if how == "cut" else file.write(b"y")

    with opened(root) as descriptor, pytest.raises(FolderChanged):
        write_folder(descriptor, Memory(), DEFAULT_LIMITS, Meddler(act=change))


def test_a_file_that_ends_early(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut and written again within one tick of the clock, so that its times tell nothing."""
    monkeypatch.setattr(os, "pread", lambda descriptor, amount, offset: bytes(amount - 1))
    with pytest.raises(FolderChanged):
        written(tree)


async def test_a_cancelled_packing_leaves_nothing(tree: Path, home: Home) -> None:
    with (tree / "large").open("wb") as file:
        file.truncate(64 << 20)
    with trio.CancelScope() as scope:
        await prepare_folder("x", tree, home, progress=lambda stage, done, total: scope.cancel())
    assert scope.cancelled_caught
    assert list(home.rootfs.iterdir()) == [] == list(home.scratch.iterdir())


async def test_a_folder_that_never_rests_is_an_error(tree: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def meddling(*arguments: object) -> None:
        write_folder(*arguments)  # type: ignore[arg-type]
        with (tree / "none").open("a") as file:
            file.write("more")

    monkeypatch.setattr(folder_root, "write_folder", meddling)
    with pytest.raises(InvalidImageError, match="was written to each of the 3 times"):
        await prepare_folder("x", tree, home)
    assert list(home.rootfs.iterdir()) == []


# -- what is refused


@pytest.mark.parametrize("call", ["scandir", "stat", "pread", "open"])
def test_a_failing_disk_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    real = getattr(os, call)

    def fail(*arguments: object, **options: object) -> object:
        if call != "scandir" and arguments[0] == b"bin":
            return real(*arguments, **options)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(tree) as root:
        monkeypatch.setattr(os, call, fail)
        with pytest.raises(ImageFault, match="cannot be read: Input/output error"):
            write_folder(root, Memory(), DEFAULT_LIMITS, NO_METER)
        monkeypatch.undo()


def test_unreadable_files_are_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = folder_module._open

    def refuse(found: Found, flags: int) -> int:
        if found.name in (b"bin", b"none") or found.name.startswith(b"secret"):
            raise PermissionError
        return real(found, flags)

    monkeypatch.setattr(folder_module, "_open", refuse)
    with pytest.raises(ImageFault, match="not readable for this user: 'bin', 'none'; change"):
        written(tree)
    with opened(tree) as descriptor, pytest.raises(ImageFault, match="not readable for this user: 'bin'; change"):
        look(descriptor, DEFAULT_LIMITS, NO_METER)
    for number in range(20):
        (tree / f"secret{number}").touch()
    with pytest.raises(ImageFault, match=r"'bin', 'none', 'secret0',.* and 12 more;"):
        written(tree)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(entries=5), "more than 5 entries"),
        (Limits(file_bytes=1 << 20), "'sparse' has 3145728 bytes; a file may have 1048576"),
        (Limits(total_bytes=3 << 20), "files have more than 3145728 bytes"),
        (Limits(depth=3), "more than 3 folders deep"),
        (Limits(path_bytes=200), "a path is longer than 200"),
        (Limits(metadata_bytes=100), "names, links and attributes have more than 100 bytes"),
    ],
)
def test_limits(tree: Path, limits: Limits, words: str) -> None:
    with pytest.raises(ImageFault, match=words):
        written(tree, limits)
    with opened(tree) as descriptor, pytest.raises(ImageFault, match=words):
        look(descriptor, limits, NO_METER)


async def test_limits_leave_nothing(tree: Path, home: Home) -> None:
    with pytest.raises(InvalidImageError, match="image 'x': it has more than 5 entries"):
        await prepare_folder("x", tree, home, limits=Limits(entries=5))
    assert list(home.rootfs.iterdir()) == [] == list(home.scratch.iterdir())


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (Image.bind("/none/at/all"), ImageNotFoundError, "no such folder"),
        (Image.bind("/etc/passwd"), InvalidImageError, "not a folder"),
    ],
)
async def test_what_is_no_folder(home: Home, source: ImageSource, error: type[Exception], words: str) -> None:
    with leased(home) as lease, pytest.raises(error, match=words):
        await prepare_root(source, home, lease)


async def test_what_a_path_means(tree: Path, home: Home) -> None:
    """A folder with a layout in it is an image, unless it is asked for as a folder."""
    with leased(home) as lease:
        assert (await prepare_root(ImageSource.of(tree), home, lease)).is_folder
        (tree / "oci-layout").write_text("{}")
        with pytest.raises(InvalidImageError):
            await prepare_root(ImageSource.of(tree), home, lease)
        assert (await prepare_root(Image.bind(tree), home, lease)).is_folder


# -- any tree

NAMES = (
    st.binary(min_size=1, max_size=12)
    .map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda name: name not in (b".", b".."))
)
LEAVES = st.one_of(st.binary(max_size=2000), st.tuples(st.just("link"), NAMES), st.just(("fifo", b"")))
TREES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=4),
    lambda inner: st.dictionaries(NAMES, st.one_of(inner, LEAVES), max_size=4),
    max_leaves=12,
)


def make(folder: bytes, tree: dict[bytes, object]) -> None:
    os.mkdir(folder)
    for name, what in tree.items():
        path = folder + b"/" + name
        match what:
            case dict():
                make(path, what)
            case bytes():
                with open(path, "wb") as file:
                    file.write(what)
            case ("link", bytes() as target):
                os.symlink(target, path)
            case _:
                os.mkfifo(path)


def names_in(tree: dict[bytes, object], at: bytes = b"") -> Iterator[bytes]:
    for name, what in tree.items():
        yield at + name
        if isinstance(what, dict):
            yield from names_in(what, at + name + b"/")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_any_tree(tree: dict[bytes, object], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("any") / "root"
    make(os.fsencode(root), tree)
    found = packed(written(root))
    assert {os.fsencode(name) for name in found} == {b".", *names_in(tree)}
    assert found == there(root)
