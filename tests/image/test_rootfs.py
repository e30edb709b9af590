"""From an image to a squashfs: what is in it, the cache, and what is left after every way of being interrupted."""

from __future__ import annotations

import gzip
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.image.images import (
    Item,
    archive_bytes,
    contents,
    docker_files,
    folder,
    hardlink,
    layer_tar,
    layout_files,
    listing,
    make_image,
    sha256,
    symlink,
    write_layout,
)
from trio_sandbox.errors import (
    HostNotReadyError,
    ImageNotFoundError,
    InvalidConfigError,
    InvalidImageError,
)
from trio_sandbox.exclusive import exclusively
from trio_sandbox.home import Home
from trio_sandbox.image.archive import ArchiveStore
from trio_sandbox.image.limits import Limits
from trio_sandbox.image.rootfs import prepare_rootfs
from trio_sandbox.image.upper import create_upper
from trio_sandbox.tools import ToolError

PACKER = shutil.which("tar2sqfs")

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(PACKER is None, reason="tar2sqfs is not installed"),
]

LAYERS = [
    layer_tar([folder("d"), Item("d/a", b"old"), hardlink("l", "d/a"), symlink("s", "d/a")]),
    layer_tar([Item("d/a", b"new" * 1000), Item("big", bytes(range(256)) * 4000)]),
]
RANDOM = random.Random(1).randbytes(12 << 20)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "layout", make_image(LAYERS, config={"Env": ["A=1"]}))


@pytest.fixture
def big_layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "big", make_image([layer_tar([Item("r", RANDOM)])], compression="gzip"))


@pytest.fixture
def packings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets the process id of every packer that runs, one a line."""
    path = tmp_path / "packings"
    path.touch()
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "tar2sqfs").write_text(f'#!/bin/sh\necho $$ >> {path}\nexec {PACKER} "$@"\n')
    (fake / "tar2sqfs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}:{os.environ['PATH']}")
    return path


def left_in(home: Home) -> list[str]:
    """The files below the home, but for the lock."""
    files = (path for path in home.root.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(home.root)) for path in files if path.name != "locks")


def unpacked(squashfs: Path) -> bytes:
    return subprocess.run(["sqfs2tar", squashfs], capture_output=True, check=True).stdout


async def test_what_is_built(home: Home, layout: Path) -> None:
    root = await prepare_rootfs(layout, home)
    assert root.reference == str(layout)
    assert root.config.env == ("A=1",)
    assert root.chain_id == sha256(f"{sha256(LAYERS[0])} {sha256(LAYERS[1])}".encode())
    assert root.manifest_digest == json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"]
    assert left_in(home) == [str(root.path.relative_to(home.root))]
    assert root.path.stat().st_mode & 0o777 == 0o600
    found = contents(unpacked(root.path))
    assert found == {"d/a": b"new" * 1000, "l": b"old", "big": bytes(range(256)) * 4000}


async def test_metadata_reaches_the_squashfs(home: Home, tmp_path: Path) -> None:
    items = [
        folder("./", mode=0o751, uid=7),
        Item("f", b"x", mode=0o4711, uid=3_000_000_000, gid=5, mtime=99, xattrs=(("user.k", "v"), ("security.s", "t"))),
        Item("c", kind=tarfile.CHRTYPE, device=(10, 229), mode=0o666),
        Item("p", kind=tarfile.FIFOTYPE),
        folder("t", mode=0o1777, xattrs=(("trusted.x", "1"),)),
        symlink("s", "x" * 300),
        hardlink("s2", "s"),
        hardlink("f2", "f"),
        Item("/".join(["n" * 200] * 8), b"deep"),
        Item("zeros", bytes(40 << 20)),
    ]
    image = make_image([layer_tar(items)], compression="gzip")
    root = await prepare_rootfs(write_layout(tmp_path / "layout", image), home)
    assert root.path.stat().st_size < 100_000
    found = listing(unpacked(root.path))
    file = found["f"] if found["f"].isreg() else found["f2"]
    assert (file.mode, file.uid, file.gid, file.mtime) == (0o4711, 3_000_000_000, 5, 99)
    assert file.pax_headers["SCHILY.xattr.user.k"] == "v"
    assert file.pax_headers["SCHILY.xattr.security.s"] == "t"
    assert {found["f"].islnk(), found["f2"].islnk()} == {True, False}
    assert (found["c"].devmajor, found["c"].devminor, found["c"].mode) == (10, 229, 0o666)
    assert found["p"].isfifo()
    assert found["t"].mode == 0o1777
    assert found["t"].pax_headers["SCHILY.xattr.trusted.x"] == "1"
    assert contents(unpacked(root.path))["/".join(["n" * 200] * 8)] == b"deep"


async def test_one_image_in_every_wrapping_is_one_root(
    home: Home, layout: Path, tmp_path: Path, packings: Path
) -> None:
    plain = make_image(LAYERS)
    packed = make_image(LAYERS, compression="gzip")
    write_layout(home.images / "local" / "demo", packed)
    (tmp_path / "oci.tar").write_bytes(archive_bytes(layout_files(packed)))
    (tmp_path / "docker.tar").write_bytes(archive_bytes(docker_files(plain)))
    images: list[str | Path] = [layout, "local/demo", tmp_path / "oci.tar", tmp_path / "docker.tar"]
    assert len({(await prepare_rootfs(image, home)).path for image in images}) == 1
    assert len(packings.read_text().splitlines()) == 1


async def test_the_same_layers_make_the_same_bytes(tmp_path: Path, layout: Path) -> None:
    one, two = [(await prepare_rootfs(layout, Home(tmp_path / name))).path.read_bytes() for name in ("one", "two")]
    assert one == two


async def test_the_cache_needs_no_layers(home: Home, layout: Path, packings: Path) -> None:
    first = await prepare_rootfs(layout, home)
    for layer in LAYERS:
        (layout / "blobs" / "sha256" / sha256(layer)[7:]).unlink()
    assert await prepare_rootfs(layout, home) == first
    assert len(packings.read_text().splitlines()) == 1


async def test_a_compressed_archive_is_unpacked_once(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "image.tar.gz"
    image = make_image(LAYERS, config={"Env": ["A=1"], "Labels": {"k": "v"}})
    archive.write_bytes(gzip.compress(archive_bytes(layout_files(image))))
    unpacked: list[object] = []
    real = ArchiveStore.open

    def counted(*args: Any) -> ArchiveStore:
        unpacked.append(args)
        return real(*args)

    monkeypatch.setattr(ArchiveStore, "open", counted)
    first = await prepare_rootfs(archive, home)
    assert await prepare_rootfs(archive, home) == first
    assert len(unpacked) == 1
    first.path.unlink()
    assert await prepare_rootfs(archive, home) == first
    for record in (home.root / "cache" / "archives").iterdir():
        record.write_bytes(b'{"config": 5}')
    assert await prepare_rootfs(archive, home) == first
    assert len(unpacked) == 3
    archive.write_bytes(gzip.compress(archive_bytes(layout_files(make_image(LAYERS[:1])))))
    assert (await prepare_rootfs(archive, home)).chain_id != first.chain_id


@pytest.mark.parametrize("damage", ["empty", "cut", "grown", "magic"])
async def test_a_damaged_cache_entry_is_rebuilt(home: Home, layout: Path, damage: str) -> None:
    path = (await prepare_rootfs(layout, home)).path
    sound = path.read_bytes()
    damaged = {"empty": b"", "cut": sound[:-4096], "grown": sound + b"x", "magic": b"XXXX" + sound[4:]}[damage]
    path.write_bytes(damaged)
    assert (await prepare_rootfs(layout, home)).path.read_bytes() == sound
    assert left_in(home) == [str(path.relative_to(home.root))]


async def test_progress_comes_in_the_trio_thread(home: Home, big_layout: Path) -> None:
    seen = []

    def progress(stage: str, done: int, total: int | None) -> None:
        trio.lowlevel.current_task()
        assert total is None or done <= total
        seen.append(stage)

    await prepare_rootfs(big_layout, home, progress=progress)
    assert list(dict.fromkeys(seen)) == ["reading layers", "building the root file system"]


# --- failures


async def test_failures_are_typed_and_leave_nothing(home: Home, layout: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageNotFoundError):
        await prepare_rootfs(f"{layout}:no-such-tag", home)
    with pytest.raises(InvalidImageError, match="bytes") as caught:
        await prepare_rootfs(layout, home, limits=Limits(total_bytes=1000))
    assert caught.value.reference == str(layout)
    blob = layout / "blobs" / "sha256" / sha256(LAYERS[1])[7:]
    blob.write_bytes(blob.read_bytes()[:-512] + b"x" * 512)
    with pytest.raises(InvalidImageError, match="instead of its diff_id"):
        await prepare_rootfs(layout, home)
    (tmp_path / "cut.tar").write_bytes(archive_bytes(layout_files(make_image(LAYERS)))[:5000])
    with pytest.raises(InvalidImageError, match="cut off"):
        await prepare_rootfs(tmp_path / "cut.tar", home)
    assert left_in(home) == []


async def test_no_packer(home: Home, layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostNotReadyError, match="squashfs-tools-ng") as caught:
        await prepare_rootfs(layout, home)
    assert caught.value.component == "tar2sqfs"
    assert left_in(home) == []


async def test_a_packer_that_fails_early_does_not_block_the_build(
    home: Home, big_layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "tar2sqfs").write_text("#!/bin/sh\necho 'r: I/O error' >&2\nexit 1\n")
    (fake / "tar2sqfs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}:{os.environ['PATH']}")
    with pytest.raises(ToolError, match="I/O error"):
        await prepare_rootfs(big_layout, home)
    assert left_in(home) == []


@pytest.mark.parametrize("at", range(1, 4))
async def test_cancellation_leaves_nothing(home: Home, big_layout: Path, packings: Path, at: int) -> None:
    descriptors = set(os.listdir("/proc/self/fd"))
    reports = 0
    with trio.CancelScope() as scope:

        def progress(stage: str, done: int, total: int | None) -> None:
            nonlocal reports
            reports += 1
            if reports == at:
                scope.cancel()

        await prepare_rootfs(big_layout, home, progress=progress)
    assert reports >= min(at, 2)
    if scope.cancelled_caught:
        assert left_in(home) == []
    for pid in packings.read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    assert set(os.listdir("/proc/self/fd")) <= descriptors | {str(max(map(int, descriptors)) + 1)}
    await prepare_rootfs(big_layout, home)


async def test_a_cancelled_waiter_goes_at_once(home: Home) -> None:
    async with exclusively(home, "one"):
        with trio.move_on_after(0.05) as scope:
            async with exclusively(home, "one"):
                pytest.fail("two holders of one lock")
        assert scope.cancelled_caught
        async with exclusively(home, "another"):
            pass
    async with exclusively(home, "one"):
        pass


async def test_many_tasks_build_once(home: Home, layout: Path, packings: Path) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(prepare_rootfs, layout, home)
    assert len(packings.read_text().splitlines()) == 1


# --- other processes

CHILD = """
import sys, trio
from pathlib import Path
from typing import Any
from trio_sandbox.home import Home
from trio_sandbox.image.rootfs import prepare_rootfs

def progress(stage, done, total):
    print("progress", stage, flush=True)

async def main():
    print("started", flush=True)
    root = await prepare_rootfs(sys.argv[1], Home(Path(sys.argv[2])), progress=progress)
    print("done", root.path, flush=True)

trio.run(main)
"""


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for child in started:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def start(children: list[subprocess.Popen[str]], layout: Path, home: Home) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", CHILD, str(layout), str(home.root)]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
    children.append(child)
    return child


def wait_for(child: subprocess.Popen[str], word: str) -> str:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(word):
            return line
    raise AssertionError(f"the child ended without {word!r}")


def test_two_processes_build_once(
    home: Home, layout: Path, packings: Path, children: list[subprocess.Popen[str]]
) -> None:
    two = [start(children, layout, home) for _ in range(2)]
    assert wait_for(two[0], "done") == wait_for(two[1], "done")
    assert len(packings.read_text().splitlines()) == 1


@pytest.mark.parametrize("stage", ["started", "progress reading", "progress building"])
def test_a_build_that_is_killed_leaves_nothing(
    home: Home, big_layout: Path, packings: Path, children: list[subprocess.Popen[str]], stage: str
) -> None:
    child = start(children, big_layout, home)
    wait_for(child, stage)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert left_in(home) == []
    for pid in packings.read_text().split():  # the packer sees the end of its input, and goes by itself
        try:
            pidfd = os.pidfd_open(int(pid))
        except ProcessLookupError:
            continue
        assert select.select([pidfd], [], [], 10)[0]
        os.close(pidfd)
    assert left_in(home) == []
    again = start(children, big_layout, home)  # and no lock is held
    wait_for(again, "done")


FULL = """
import sys, trio
from pathlib import Path
from typing import Any
from trio_sandbox.errors import StorageError
from trio_sandbox.home import Home
from trio_sandbox.image.rootfs import prepare_rootfs

home = Home(Path(sys.argv[1]))
for image in sys.argv[2:]:
    try:
        trio.run(prepare_rootfs, image, home)
    except StorageError as error:
        print(type(error).__name__, error.errno, sorted(p.name for p in home.root.rglob("*") if p.is_file()))
"""


@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0,
    reason="mounting a small file system needs root",
)
@pytest.mark.parametrize("size", ["64k", "1m", "4m"])
def test_a_full_disk(tmp_path: Path, big_layout: Path, size: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    archive = tmp_path / "image.tar.gz"
    archive.write_bytes(gzip.compress(archive_bytes(layout_files(make_image([layer_tar([Item("r", RANDOM)])])))))
    script = 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, size, str(small), sys.executable, "-c", FULL, str(small)]
    done = subprocess.run(
        [*argv, str(big_layout), str(archive)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert done.stdout.splitlines() == ["StorageError 28 ['locks']", "StorageError 28 ['locks']"], done.stderr


# --- the writable layer


async def test_upper(home: Home) -> None:
    one = await create_upper(home, 64)
    two = await create_upper(home, 64)
    try:
        assert os.fstat(one).st_size == 64 << 20
        assert os.fstat(one).st_blocks * 512 < 2 << 20
        check = await trio.run_process(
            ["e2fsck", "-fn", f"/proc/self/fd/{one}"],
            pass_fds=[one],
            capture_stdout=True,
            check=False,
            env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        )
        assert check.returncode == 0, check.stdout
        os.pwrite(one, b"mine", 40 << 20)
        assert os.pread(two, 4, 40 << 20) == bytes(4)
        assert left_in(home) == ["prototypes/ext4-64-1.img"]
    finally:
        os.close(one)
        os.close(two)


async def test_a_damaged_prototype_is_made_again(home: Home) -> None:
    os.close(await create_upper(home, 32))
    prototype = home.root / "prototypes" / "ext4-32-1.img"
    for damage in (b"", bytes(32 << 20)):
        prototype.write_bytes(damage)
        upper = await create_upper(home, 32)
        assert os.pread(upper, 2, 1080) == b"\x53\xef"
        os.close(upper)


async def test_upper_sizes_are_bounded(home: Home) -> None:
    for size in (0, -1, 15, (1 << 20) + 1):
        with pytest.raises(InvalidConfigError):
            await create_upper(home, size)
    for size in (16, 255, 256, 70_000):
        os.close(await create_upper(home, size))
    assert list(home.scratch.iterdir()) == []


async def test_no_formatter(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("trio_sandbox.image.upper.SYSTEM_FOLDERS", str(tmp_path))
    with pytest.raises(HostNotReadyError, match="e2fsprogs"):
        await create_upper(home, 64)
    assert left_in(home) == []
