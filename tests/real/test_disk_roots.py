"""Disk images as roots of real machines: found on the whole disk or on a partition, written to, and refused in time."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.cli.commands import run
from tests.processes import ended
from tests.real import disks
from trio_sandbox import (
    BootError,
    Image,
    ImageInUseError,
    ImageNotFoundError,
    ImageSource,
    InvalidImageError,
    Sandbox,
    open_sandbox,
)
from trio_sandbox.config import AGENT_PATH, DEFAULT_PATH
from trio_sandbox.home import Home

TOOLS = ("qemu-img", "sfdisk", "mke2fs", "sqfs2tar", "mkfs.vfat", "mkfs.xfs", "mkfs.btrfs")
LACKING = [name for name in TOOLS if disks.program(name) is None]
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(bool(LACKING), reason=f"{', '.join(LACKING)} not installed"),
]
ROOT, EFI, LINUX = disks.ROOT_TYPE[platform.machine()], "uefi", "linux"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.unpack_small_root(Home.default(), tmp_path_factory.mktemp("root") / "small")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"disk-{os.getpid()}-{abs(hash(request.node.name)) % 100_000}"


@asynccontextmanager
async def booted(name: str, image: str | Path | ImageSource) -> AsyncIterator[Sandbox]:
    async with open_sandbox(name, image=image, memory=256, keep=True) as sandbox:
        yield sandbox
    await Sandbox.remove(name)


async def said(sandbox: Sandbox, script: str) -> str:
    output = await sandbox.shell(script)
    assert output.success, output.stderr_text
    return output.stdout_text


async def mounted(sandbox: Sandbox) -> tuple[str, str]:
    """Device and file system of "/"."""
    lines = [line.split() for line in (await said(sandbox, "cat /proc/mounts")).splitlines()]
    return next((device, kind) for device, place, kind, *_ in lines if place == "/")


async def test_what_is_written_is_in_the_file_and_one_machine_writes(root: Path, tmp_path: Path, name: str) -> None:
    image = disks.ext4(tmp_path / "disk.raw", 64, root)
    async with await Sandbox.create(name, image=image, memory=256) as sandbox:
        assert await mounted(sandbox) == ("/dev/vda", "ext4")
        assert {"proc", "sys", "dev", "tmp", "run", ".msb"} <= set((await said(sandbox, "ls -a /")).split())
        assert await said(sandbox, "echo kept > /kept; cat /etc/hostname") == f"{name}\n"
        assert await said(sandbox, "pwd; echo $PATH") == f"/\n{DEFAULT_PATH}:{AGENT_PATH}\n"
        os.link(image, tmp_path / "same.raw")
        with pytest.raises(ImageInUseError, match="give each sandbox a copy of its own"):
            await Sandbox.create(f"{name}-2", image=tmp_path / "same.raw")
        await sandbox.pause()
        await sandbox.resume()
        assert await said(sandbox, "cat /kept") == "kept\n"
        await sandbox.stop()
        image.rename(tmp_path / "moved.raw")
        with pytest.raises(ImageNotFoundError, match="there is no such file"):
            await Sandbox.start(name)
        (tmp_path / "moved.raw").rename(image)
        async with await Sandbox.start(name) as sandbox:
            assert await said(sandbox, "cat /kept; ls /tmp; echo more > /more") == "kept\n"
            await sandbox.drain()
            await sandbox.wait()
    assert written(image, "/kept", tmp_path) == "kept\n" and written(image, "/more", tmp_path) == "more\n"


def written(image: Path, path: str, tmp_path: Path) -> str:
    """A file on an ext4 that was left clean."""
    disks.run("e2fsck", "-fn", image)
    dumped = tmp_path / "dumped"
    disks.run("debugfs", "-R", f"dump {path} {dumped}", image)
    return dumped.read_text()


OWNER = """
import sys, trio
from trio_sandbox import open_sandbox

async def main():
    async with open_sandbox(sys.argv[1], image=sys.argv[2], memory=256) as sandbox:
        assert (await sandbox.shell("echo kept > /kept; sync")).success
        print("ready", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def test_a_disk_of_another_process_is_free_when_that_is_killed(root: Path, tmp_path: Path, name: str) -> None:
    """And the end of a block writes everything down, though the sandbox does not stay."""
    image = disks.ext4(tmp_path / "disk.raw", 40, root)
    argv = [sys.executable, "-c", OWNER, f"{name}-owner", str(image)]
    with ended(subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])) as owner:
        assert owner.stdout is not None
        assert await trio.to_thread.run_sync(owner.stdout.readline) == b"ready\n"
        with pytest.raises(ImageInUseError):
            async with open_sandbox(name, image=image, memory=256):
                pass
        owner.kill()
    async with open_sandbox(name, image=image, memory=256) as sandbox:
        await said(sandbox, "cat /kept > /again")
    assert written(image, "/again", tmp_path) == "kept\n"


async def test_a_cloud_image_over_which_another_lies(root: Path, tmp_path: Path, name: str) -> None:
    """A partition table with an EFI partition, a large one with data, and the root, whose type says that it is that."""
    efi = disks.sparse(tmp_path / "efi", 33)
    disks.run("mkfs.vfat", efi)
    decoy, small = disks.ext4(tmp_path / "decoy", 80, root), disks.ext4(tmp_path / "small", 40, root)
    raw = disks.partitioned(tmp_path / "gpt.raw", (EFI, efi), (LINUX, decoy), (ROOT, small))
    base = disks.converted(raw, tmp_path / "base.qcow2")
    before = hashlib.sha256(base.read_bytes()).digest()
    over = disks.over(base, tmp_path / "over.qcow2")
    async with booted(name, over) as sandbox:
        assert await mounted(sandbox) == ("/dev/vda3", "ext4")
        await said(sandbox, "echo kept > /kept")
    assert hashlib.sha256(base.read_bytes()).digest() == before
    async with booted(name, over) as sandbox:
        assert await said(sandbox, "cat /kept") == "kept\n"
    disks.run("qemu-img", "check", over)


async def test_the_largest_partition_with_a_root_in_it(root: Path, tmp_path: Path, name: str) -> None:
    data, small = disks.ext4(tmp_path / "data", 80), disks.ext4(tmp_path / "small", 40, root)
    raw = disks.partitioned(tmp_path / "mbr.raw", (LINUX, data), (LINUX, small), label="dos")
    async with booted(name, disks.converted(raw, tmp_path / "disk.vmdk")) as sandbox:
        assert await mounted(sandbox) == ("/dev/vda2", "ext4")


async def test_xfs(root: Path, tmp_path: Path, name: str) -> None:
    image = disks.xfs(tmp_path / "disk.img", root)
    async with booted(name, Image.disk(image, format="raw", fstype="xfs")) as sandbox:
        assert await mounted(sandbox) == ("/dev/vda", "xfs")
        await said(sandbox, "echo kept > /kept")


async def test_btrfs(root: Path, tmp_path: Path, name: str) -> None:
    async with booted(name, disks.btrfs(tmp_path / "disk.raw", root)) as sandbox:
        assert await mounted(sandbox) == ("/dev/vda", "btrfs")
        await said(sandbox, "echo kept > /kept")


async def test_what_was_found_instead_of_a_root(root: Path, tmp_path: Path, name: str) -> None:
    efi = disks.sparse(tmp_path / "efi", 33)
    disks.run("mkfs.vfat", efi)
    data, nothing = disks.ext4(tmp_path / "data", 16), disks.sparse(tmp_path / "nothing", 4)
    raw = disks.partitioned(tmp_path / "gpt.raw", (EFI, efi), (LINUX, data), (LINUX, nothing))
    with pytest.raises(BootError) as caught:
        async with open_sandbox(name, image=raw):
            pass
    assert caught.value.stage == "mount"
    for words in (
        "no root on the disk:",
        "vda1 (33 MiB) has vfat,",
        "vda2 (16 MiB) has ext4 without a root in it,",
        "vda3 (4 MiB) has nothing that is known",
    ):
        assert words in str(caught.value)


async def test_another_file_system_than_was_asked_for(root: Path, tmp_path: Path, name: str) -> None:
    image = disks.ext4(tmp_path / "disk.raw", 40, root)
    with pytest.raises(BootError, match=r"no such root on the disk: vda \(40 MiB\) has ext4"):
        async with open_sandbox(name, image=Image.disk(image, fstype="xfs")):
            pass


async def test_a_bad_image_is_refused_before_anything_boots(tmp_path: Path, name: str, home: Home) -> None:
    disks.run(
        "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", tmp_path / "a.qcow2", "1M"
    )
    with trio.fail_after(2), pytest.raises(InvalidImageError, match="'/etc/shadow' is not in its own folder"):
        async with open_sandbox(name, image=tmp_path / "a.qcow2"):
            pass
    done = await run("run", "--name", name, str(tmp_path / "a.qcow2"), "true")
    assert done.returncode == 125 and b"'/etc/shadow' is not in its own folder" in done.stderr
