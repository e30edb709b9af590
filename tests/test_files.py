"""Nameless files, publishing in one step, sparse copies, names as locks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.errors import SandboxAlreadyExistsError, StorageError
from trio_sandbox.files import anonymous_file, copy_sparse, publish, publish_bytes
from trio_sandbox.home import Home
from trio_sandbox.names import reserved_name


def test_an_anonymous_file_has_no_name(tmp_path: Path) -> None:
    descriptor = anonymous_file(tmp_path)
    os.write(descriptor, b"x")
    assert list(tmp_path.iterdir()) == []
    os.close(descriptor)


def test_without_o_tmpfile_the_name_goes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refusing(path: str | Path, flags: int, *rest: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return real(path, flags, *rest)

    monkeypatch.setattr("trio_sandbox.files.os.open", refusing)
    descriptor = anonymous_file(tmp_path)
    os.write(descriptor, b"content")
    assert list(tmp_path.iterdir()) == []
    publish(descriptor, tmp_path / "named")
    os.close(descriptor)
    assert (tmp_path / "named").read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["named"]


def test_publish_replaces_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"old", b"new"):
        publish_bytes(path, content, 0o640)
        assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("trio_sandbox.files.os.fsync", full)
    with pytest.raises(StorageError) as caught:
        publish_bytes(tmp_path / "file", b"x")
    assert (caught.value.errno, caught.value.path) == (errno.ENOSPC, str(tmp_path))
    assert os.listdir(tmp_path) == []


@given(
    pieces=st.lists(st.tuples(st.integers(0, 64), st.binary(min_size=1, max_size=9000)), max_size=5),
    size=st.integers(0, 300_000),
)
def test_a_sparse_copy_is_equal_and_as_sparse(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, bytes]], size: int
) -> None:
    folder = tmp_path_factory.mktemp("sparse")
    source, target = anonymous_file(folder), anonymous_file(folder)
    os.ftruncate(source, size)
    for block, data in pieces:
        os.pwrite(source, data, block * 65_536)
    copy_sparse(source, target)
    length = os.fstat(source).st_size
    assert os.fstat(target).st_size == length
    assert os.pread(target, length, 0) == os.pread(source, length, 0)
    assert os.fstat(target).st_blocks <= os.fstat(source).st_blocks + 8
    os.close(source)
    os.close(target)


def test_a_name_is_held_once_and_leaves_no_file_of_its_own(tmp_path: Path) -> None:
    home = Home(tmp_path)

    async def hold() -> None:
        async with reserved_name(home, "a"), reserved_name(home, "b"):
            with pytest.raises(SandboxAlreadyExistsError, match="'a'"):
                async with reserved_name(home, "a"):
                    pass
            assert os.listdir(home.run) == ["locks"]
        async with reserved_name(home, "a"):
            pass

    trio.run(hold)


def test_the_home_folder_is_private(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert home.blobs.stat().st_mode & 0o777 == 0o700
    assert home.root.stat().st_mode & 0o777 == 0o700
    with pytest.raises(StorageError):
        Home(Path("/proc/no/such")).blobs  # noqa: B018 - asking creates the folder
