"""The writable layer: sparse, sound, of a bounded size, from a prototype that is made again when it is damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from tests.image.conftest import left_in
from trio_sandbox.errors import HostNotReadyError, InvalidConfigError
from trio_sandbox.home import Home
from trio_sandbox.image.upper import create_upper

pytestmark = pytest.mark.anyio


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
