"""From an image to a squashfs: what is in it, the cache, and what is left after every way of being interrupted."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.image.conftest import LAYERS, PACKER, left_in
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
    InvalidImageError,
)
from trio_sandbox.exclusive import exclusively
from trio_sandbox.home import Home
from trio_sandbox.image.archive import ArchiveStore
from trio_sandbox.image.limits import Limits
from trio_sandbox.image.rootfs import prepare_rootfs
from trio_sandbox.tools import ToolError

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(PACKER is None, reason="tar2sqfs is not installed"),
]


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
    assert found == {"d/a": b"new" * 1000, "b": b"old", "l": b"old", "big": bytes(range(256)) * 4000}


async def test_what_was_guessed_wrong_is_packed_again(home: Home, tmp_path: Path, packings: Path) -> None:
    layers = [layer_tar([Item("a", b"1"), hardlink("b", "a")]), layer_tar([Item("a", b"2"), Item("a", b"3")])]
    root = await prepare_rootfs(write_layout(tmp_path / "layout", make_image(layers)), home)
    assert contents(unpacked(root.path)) == {"a": b"3", "b": b"1"}
    assert len(packings.read_text().splitlines()) == 2
    assert left_in(home) == [str(root.path.relative_to(home.root))]


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
    assert list(dict.fromkeys(seen)) == ["reading layer 1 of 1", "writing folders and links"]


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
