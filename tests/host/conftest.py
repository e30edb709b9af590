"""A data folder, a made-up kernel and programs that play QEMU and apt."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from trio_sandbox.home import Home
from trio_sandbox.host.kernel import Kernel

RELEASE = "6.1.0-9-cloud-amd64"


@pytest.fixture(autouse=True)
def no_named_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have named a kernel of their own."""
    monkeypatch.delenv("TRIO_SANDBOX_KERNEL", raising=False)
    monkeypatch.delenv("TRIO_SANDBOX_MODULES", raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def make_modules(folder: Path) -> None:
    """A module folder in which every wanted module is a file without needs."""
    folder.mkdir(parents=True)
    names = ["virtio_mmio", "virtio_console", "virtio_blk", "squashfs", "overlay"]
    (folder / "modules.dep").write_text("".join(f"kernel/{name}.ko:\n" for name in names))
    (folder / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    (folder / "kernel").mkdir()
    for name in names:
        (folder / "kernel" / f"{name}.ko").write_bytes(b"\x7fELF" + name.encode())


def make_kernel(home: Home, release: str = RELEASE) -> Kernel:
    """A kernel in `home`, as a fetch would leave it."""
    folder = home.kernels / release
    make_modules(folder / "lib" / "modules" / release)
    (folder / "vmlinuz").write_bytes(b"kernel")
    (folder / "package").write_text("linux-image-test 1.0\n")
    return Kernel(folder / "vmlinuz", folder / "lib" / "modules" / release, release, "linux-image-test 1.0")


@pytest.fixture
def kernel(home: Home) -> Kernel:
    return make_kernel(home)


Program = Callable[[str, str], Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Make an executable of this name, first on PATH, with this Python body."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(name: str, body: str) -> Path:
        path = folder / name
        path.write_text(f"#!{sys.executable} -IS\nimport os, sys, time\n{body}\n")
        path.chmod(0o755)
        return path

    return make


async def appears(path: Path) -> None:
    """Wait until another process has written something to this file."""
    with trio.fail_after(20):
        while not path.exists() or not path.stat().st_size:  # noqa: ASYNC110  another process tells us no other way
            await trio.sleep(0.01)
