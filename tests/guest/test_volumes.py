"""What the agent takes a disk for, by its first bytes, on what the usual programs make and on garbage."""

from __future__ import annotations

import os
import platform
import shutil
import struct
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.guest.running import SANITIZERS

REACH = 68 * 1024
MIB = 1 << 20
ROOT_TYPE = uuid.UUID(
    {
        "x86_64": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
        "aarch64": "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
    }[platform.machine()]
)
LINUX, EFI = "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"


class Look:
    """The agent's own code, asked again and again."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **SANITIZERS}
        )

    def __call__(self, start: bytes | Path) -> tuple[str, int]:
        """What is on it ("-": nothing that is known), and the number of the partition that calls itself the root."""
        if isinstance(start, Path):
            with start.open("rb") as file:
                start = file.read(REACH)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"%d\n" % len(start) + start)
        self.process.stdin.flush()
        name, number = self.process.stdout.readline().split()
        return name.decode(), int(number)


@pytest.fixture(scope="module")
def look(programs: Path) -> Iterator[Look]:
    look = Look(programs / "volume_check")
    with look.process as process:
        yield look
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


def found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@pytest.mark.parametrize(
    ("command", "mib", "name"),
    [
        ("mke2fs -q -t ext2", 8, "ext4"),
        ("mke2fs -q -t ext3", 8, "ext4"),
        ("mke2fs -q -t ext4", 8, "ext4"),
        ("mke2fs -q -t ext4 -b 1024", 8, "ext4"),
        ("mkfs.xfs -q", 320, "xfs"),
        ("mkfs.btrfs -q", 128, "btrfs"),
        ("mkfs.vfat -F 32", 64, "vfat"),
        ("mkfs.vfat -F 16", 16, "vfat"),
        ("mkfs.vfat -F 12", 2, "vfat"),
        ("mkswap", 4, "swap"),
    ],
)
def test_what_the_usual_programs_make(look: Look, tmp_path: Path, command: str, mib: int, name: str) -> None:
    program, *options = command.split()
    path = found(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    image = tmp_path / "volume"
    with image.open("wb") as file:
        file.truncate(mib * MIB)
    subprocess.run([path, *options, image], check=True, capture_output=True)
    assert look(image) == (name, 0)


@pytest.mark.parametrize("start", [b"", b"\0" * REACH, b"\xff" * REACH, b"\0" * 0x438 + b"\x53\xef" + bytes(2000)])
def test_what_is_nothing(look: Look, start: bytes) -> None:
    assert look(start) == ("-", 0)


def table(*types: str) -> str:
    return "label: gpt\n" + "".join(f"size=1M, type={kind}\n" for kind in types)


@pytest.mark.skipif(found("sfdisk") is None, reason="sfdisk is not installed")
@pytest.mark.parametrize(
    ("script", "number"),
    [
        (table(EFI, LINUX), 0),
        (table(EFI, LINUX, str(ROOT_TYPE)), 3),
        (table(str(ROOT_TYPE), str(ROOT_TYPE)), 1),
        ("label: gpt\nfirst-lba: 2048\n14: size=1M\n1: size=1M, type=" + str(ROOT_TYPE), 1),
        ("label: dos\nsize=1M, type=83\n", 0),
    ],
)
def test_which_partition_calls_itself_the_root(look: Look, tmp_path: Path, script: str, number: int) -> None:
    program, image = found("sfdisk"), tmp_path / "disk"
    assert program
    with image.open("wb") as file:
        file.truncate(16 * MIB)
    subprocess.run([program, "-q", image], input=script.encode(), check=True, capture_output=True)
    assert look(image) == ("-", number)


def header(sector: int, count: int, size: int) -> bytes:
    return bytes(512) + b"EFI PART" + bytes(64) + struct.pack("<QII", sector, count, size) + bytes(424)


@pytest.mark.parametrize(
    ("sector", "count", "size", "number"),
    [
        (2, 4, 128, 2),
        (2, 1, 128, 0),
        (2, 4, 64, 0),
        (2, 1 << 31, 128, 2),
        (2, 4, (1 << 32) - 1, 0),
        (1 << 63, 4, 128, 0),
        ((1 << 64) - 1, 4, 128, 0),
        (1 << 55, 4, 128, 0),
    ],
)
def test_a_table_that_lies(look: Look, sector: int, count: int, size: int, number: int) -> None:
    assert look(header(sector, count, size) + bytes(128) + ROOT_TYPE.bytes_le + bytes(2000))[1] == number


U32 = st.integers(0, (1 << 32) - 1)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 8),
    U32,
    st.integers(0, 600),
    st.binary(max_size=4096),
    st.integers(0, REACH),
    st.lists(st.tuples(st.integers(0, REACH), st.binary(max_size=16))),
)
def test_garbage_is_only_looked_at(
    look: Look, sector: int, count: int, size: int, rest: bytes, length: int, more: list[tuple[int, bytes]]
) -> None:
    start = bytearray((header(sector, count, size) + rest).ljust(REACH, b"\0"))
    for offset, data in more:
        start[offset : offset + len(data)] = data
    name, number = look(bytes(start[:length]))
    assert name.isascii() and 0 <= number <= 128
