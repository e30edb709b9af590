"""Patches and scripts: what a program finds when it is the first that runs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.conformance.conftest import Open
from trio_sandbox import InvalidConfigError, Patch, PatchConfig, PatchFailedError

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Real time for both: threads read the host's files, and a virtual clock would not wait for them."""
    return "trio"


BASE = "/srv/patched"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of the host."""
    folder = tmp_path / "source"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "file").write_bytes(b"\0deep")
    (folder / "deep" / "er" / "file").chmod(0o750)
    (folder / "link").symlink_to("../nowhere")
    os.mkfifo(folder / "fifo")
    return folder


async def test_all_kinds_in_their_order(opened: Open, source: Path) -> None:
    large = source / "large"
    large.write_bytes(os.urandom(700_000))
    large.chmod(0o711)
    patches = [
        Patch.text(f"{BASE}/text", "one\n"),
        Patch.append(f"{BASE}/text", "zwö\n"),
        Patch.file(f"{BASE}/text", b"\0\xff", mode=0o600, replace=True),
        Patch.text(f"{BASE}/gone", "x"),
        Patch.remove(f"{BASE}/gone"),
        Patch.remove(f"{BASE}/never-there"),
        Patch.mkdir(f"{BASE}/folder", mode=0o700),
        Patch.mkdir(f"{BASE}/folder"),
        Patch.copy_file(large, f"{BASE}/folder/large"),
        Patch.copy_file(large, f"{BASE}/folder/plain", mode=0o444),
        Patch.copy_dir(source / "deep", f"{BASE}/tree"),
        Patch.symlink("../folder", f"{BASE}/tree/link"),
        Patch.text(f"{BASE}/tree/link/through", "a link on the way is followed\n"),
        Patch.copy_dir(source, f"{BASE}/other"),
    ]
    async with opened(patches=patches) as sandbox:
        fs = sandbox.fs
        assert await fs.read(f"{BASE}/text") == b"\0\xff"
        assert (await fs.stat(f"{BASE}/text")).mode & 0o7777 == 0o600
        assert not await fs.exists(f"{BASE}/gone")
        assert (await fs.stat(f"{BASE}/folder")).mode & 0o7777 == 0o700
        assert await fs.read(f"{BASE}/folder/large") == large.read_bytes()
        assert (await fs.stat(f"{BASE}/folder/large")).mode & 0o7777 == 0o711
        assert (await fs.stat(f"{BASE}/folder/plain")).mode & 0o7777 == 0o444
        assert await fs.read(f"{BASE}/tree/er/file") == b"\0deep"
        assert (await fs.stat(f"{BASE}/tree/er/file")).mode & 0o7777 == 0o750
        assert await fs.readlink(f"{BASE}/tree/link") == "../folder"
        assert await fs.read_text(f"{BASE}/folder/through") == "a link on the way is followed\n"
        assert await fs.readlink(f"{BASE}/other/link") == "../nowhere"
        assert not await fs.exists(f"{BASE}/other/fifo")


@pytest.mark.parametrize(
    ("patch", "path", "number"),
    [
        (Patch.text(f"{BASE}/file", "x"), f"{BASE}/file", errno.EEXIST),
        (Patch.symlink("x", f"{BASE}/file"), f"{BASE}/file", errno.EEXIST),
        (Patch.text(f"{BASE}/link", "x"), f"{BASE}/link", errno.EEXIST),
        (Patch.text(f"{BASE}/folder", "x", replace=True), f"{BASE}/folder", errno.EISDIR),
        (Patch.mkdir(f"{BASE}/file/below"), f"{BASE}/file/below", errno.ENOTDIR),
        (Patch.append(f"{BASE}/nothing", "x"), f"{BASE}/nothing", errno.ENOENT),
        (Patch.text(f"{BASE}/loop/file", "x"), f"{BASE}/loop/file", errno.ELOOP),
    ],
)
async def test_conflicts_are_errors(opened: Open, patch: PatchConfig, path: str, number: int) -> None:
    before = [
        Patch.text(f"{BASE}/file", "kept"),
        Patch.symlink("file", f"{BASE}/link"),
        Patch.mkdir(f"{BASE}/folder"),
        Patch.symlink("loop", f"{BASE}/loop"),
    ]
    with pytest.raises(PatchFailedError) as caught:
        async with opened(patches=[*before, patch]):
            raise AssertionError("not reached")
    error = caught.value
    assert (error.index, error.kind, error.path, error.errno) == (4, patch.kind, path, number)
    async with opened(patches=before) as sandbox:  # the name is free, and nothing of the other is here
        assert await sandbox.fs.read(f"{BASE}/link") == b"kept"


async def test_replacing(opened: Open, source: Path) -> None:
    patches = [
        Patch.text(f"{BASE}/target", "untouched"),
        Patch.symlink("target", f"{BASE}/link"),
        Patch.text(f"{BASE}/link", "a file in its place", replace=True),
        Patch.text(f"{BASE}/file", "x", mode=0o600),
        Patch.symlink("target", f"{BASE}/file", replace=True),
        Patch.text(f"{BASE}/tree/er/other", "stays"),
        Patch.text(f"{BASE}/tree/er/file", "goes"),
        Patch.copy_dir(source / "deep", f"{BASE}/tree", replace=True),
    ]
    async with opened(patches=patches) as sandbox:
        assert await sandbox.fs.read(f"{BASE}/target") == b"untouched"
        assert await sandbox.fs.read(f"{BASE}/link") == b"a file in its place"
        assert await sandbox.fs.readlink(f"{BASE}/file") == "target"
        assert await sandbox.fs.read(f"{BASE}/tree/er/other") == b"stays"
        assert await sandbox.fs.read(f"{BASE}/tree/er/file") == b"\0deep"


async def test_a_source_that_is_not_there_creates_nothing(opened: Open, tmp_path: Path) -> None:
    with pytest.raises((InvalidConfigError, PatchFailedError)) as caught:
        async with opened(patches=[Patch.copy_file(tmp_path / "none", "/a")]):
            raise AssertionError("not reached")
    assert str(tmp_path / "none") in str(caught.value)


async def test_scripts_are_there(opened: Open) -> None:
    scripts = {"hello": "echo hello $1", "other": "#!/no/such/interpreter\n"}
    async with opened(scripts=scripts) as sandbox:
        assert await sandbox.fs.read("/.msb/scripts/hello") == b"#!/bin/sh\necho hello $1"
        assert await sandbox.fs.read("/.msb/scripts/other") == b"#!/no/such/interpreter\n"
        assert {entry.mode & 0o7777 for entry in await sandbox.fs.list("/.msb/scripts")} == {0o755}
