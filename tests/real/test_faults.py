"""What is missing, broken or full: the typed error before anything is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from trio_sandbox import (
    BootError,
    Home,
    HostNotReadyError,
    ImageNotFoundError,
    InvalidConfigError,
    InvalidImageError,
    UnsupportedError,
    open_sandbox,
)
from trio_sandbox import (
    sandbox as sandbox_module,
)
from trio_sandbox.host import cpio
from trio_sandbox.host.ready import HostAssets, host_assets

from .traces import leaving_nothing

pytestmark = pytest.mark.anyio


async def boot(home: Home, image: Any = "local/base", **options: Any) -> None:
    async with open_sandbox("faulty", image=image, home=home, **options):
        raise AssertionError("not reached")


async def test_bad_images(home: Home, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(os.urandom(20_000))
    with leaving_nothing(home):
        for image, error in (
            ("local/no-such-image", ImageNotFoundError),
            ("./no-such-folder", ImageNotFoundError),
            (damaged, InvalidImageError),
            ("python:3.12", ImageNotFoundError),
            ("disk.qcow2", InvalidConfigError),
            ("Not An Image!", InvalidConfigError),
            ("", InvalidConfigError),
        ):
            with pytest.raises(error):
                await boot(home, image, pull_policy="never")


async def test_options_are_refused_before_anything_happens(tmp_path: Path) -> None:
    untouched = Home(tmp_path / "home")
    with pytest.raises(InvalidConfigError):
        await boot(untouched, cpus=0)
    with pytest.raises(UnsupportedError):
        await boot(untouched, volumes={"/x": 1})
    assert not untouched.root.exists()


async def test_no_qemu(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with leaving_nothing(home), pytest.raises(HostNotReadyError, match=r"(?i)qemu.*trio-sandbox setup"):
        await boot(home)


async def test_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(HostNotReadyError, match=r"kernel.*trio-sandbox setup"):
        await boot(Home(tmp_path / "home"))


@pytest.fixture
def other_assets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Boot with another kernel or initramfs than this machine's."""
    changes: dict[str, Any] = {}

    async def changed(home: Home, **options: Any) -> HostAssets:
        return attrs.evolve(await host_assets(home, **options), **changes)

    monkeypatch.setattr(sandbox_module, "host_assets", changed)
    return changes


async def test_a_boot_that_hangs_is_tried_twice_and_reported(
    home: Home, tmp_path: Path, other_assets: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A kernel whose init never says anything: /init is a program that sleeps."""
    other_assets["initramfs"] = initramfs_with(tmp_path, "for (;;) pause();")
    with leaving_nothing(home), pytest.raises(BootError, match="twice") as caught, trio.fail_after(60):
        await boot(home, boot_timeout=10.0)
    assert caught.value.stage == "kernel"
    assert "trying once more" in caplog.text


async def test_an_init_that_dies_is_a_panic_and_its_console_is_shown(
    home: Home, tmp_path: Path, other_assets: dict[str, Any]
) -> None:
    other_assets["initramfs"] = initramfs_with(tmp_path, "return 3;")
    with leaving_nothing(home), pytest.raises(BootError, match="Kernel panic"):
        await boot(home)


async def test_a_kernel_that_is_none(home: Home, tmp_path: Path, other_assets: dict[str, Any]) -> None:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(os.urandom(100_000))
    assets = await host_assets(home)
    other_assets["kernel"] = attrs.evolve(assets.kernel, image=kernel)
    with leaving_nothing(home), pytest.raises(BootError) as caught:
        await boot(home, boot_timeout=8.0)
    assert caught.value.stage in ("spawn", "kernel")


def initramfs_with(folder: Path, body: str) -> Path:
    """An initial RAM file system whose /init is a C program of one statement."""
    source = folder / "init.c"
    source.write_text(f"#include <unistd.h>\nint main(void) {{ {body} }}\n")
    compiler = shutil.which("musl-gcc") or shutil.which("cc")
    assert compiler
    subprocess.run([compiler, "-static", "-o", folder / "init", source], check=True)
    path = folder / "initramfs"
    path.write_bytes(cpio.archive([cpio.file("init", (folder / "init").read_bytes(), 0o755)]))
    return path


FULL_DISK = """
import os, subprocess, sys, trio
from pathlib import Path
from typing import Any
from trio_sandbox import Home, StorageError, open_sandbox

real, small = Home.default(), Home(Path(sys.argv[1]) / "home")
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", sys.argv[1]], check=True)
small.root.mkdir()
for name in ("kernels", "initramfs", "host", "images"):
    (small.root / name).symlink_to(real.folder(name))

async def main():
    before = sorted(os.walk(small.root))
    try:
        async with open_sandbox("full", image="local/base", home=small):
            print("not reached")
    except StorageError as error:
        print("StorageError", error.errno)
    left = [path for path in small.root.rglob("*") if path.is_file() and path.stat().st_size and not path.is_symlink()]
    print("left", [str(path) for path in left if path.relative_to(small.root).parts[0] in ("scratch", "cache", "run")])

trio.run(main)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk(tmp_path: Path) -> None:
    """In a mount namespace of its own, so that the small disk is gone with the process."""
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", textwrap.dedent(FULL_DISK), tmp_path],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == "StorageError 28\nleft []\n", done.stderr
