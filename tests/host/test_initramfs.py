"""The initial RAM file system: what is in it, and when it is built anew."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.home import Home
from trio_sandbox.host.initramfs import FOLDERS, KEPT, build_initramfs, initramfs_path
from trio_sandbox.host.kernel import Kernel

from .test_cpio import unpack

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "agent"
    path.write_bytes(b"\x7fELF agent")
    monkeypatch.setattr("trio_sandbox.host.initramfs.agent_path", lambda: path)
    return path


async def test_contents(kernel: Kernel, home: Home) -> None:
    found = unpack((await build_initramfs(kernel, home)).read_bytes())
    assert found["init"] == (stat.S_IFREG | 0o755, b"\x7fELF agent", (0, 0))
    assert found["dev/console"][2] == (5, 1)
    assert set(FOLDERS) < set(found)
    modules = [name for name in found if name.startswith("modules/")]
    assert modules == sorted(modules)
    assert modules[0] == "modules/00-virtio_mmio.ko"
    assert found["modules/00-virtio_mmio.ko"][1] == b"\x7fELFvirtio_mmio"
    assert not any("ext4" in name for name in modules), "it is built in"


async def test_built_once(kernel: Kernel, home: Home) -> None:
    path = await build_initramfs(kernel, home)
    before = path.stat()
    assert await build_initramfs(kernel, home) == path == initramfs_path(kernel, home)
    assert path.stat() == before


async def test_another_agent_or_module_index_gives_another_file(kernel: Kernel, home: Home, agent: Path) -> None:
    first = await build_initramfs(kernel, home)
    agent.write_bytes(b"\x7fELF rebuilt")
    second = await build_initramfs(kernel, home)
    index = kernel.modules / "modules.dep"
    index.write_text(index.read_text() + "kernel/new.ko:\n")
    third = await build_initramfs(kernel, home)
    assert len({first, second, third}) == 3


async def test_the_newest_are_kept(kernel: Kernel, home: Home, agent: Path) -> None:
    for number in range(KEPT + 3):
        agent.write_bytes(b"\x7fELF %d" % number)
        newest = await build_initramfs(kernel, home)
    left = list(home.initramfs.iterdir())
    assert len(left) == KEPT
    assert newest in left


async def test_no_agent(kernel: Kernel, home: Home, agent: Path) -> None:
    agent.unlink()
    with pytest.raises(HostNotReadyError, match="guest agent"):
        await build_initramfs(kernel, home)


async def test_a_damaged_module_leaves_no_file(kernel: Kernel, home: Home) -> None:
    (kernel.modules / "kernel" / "overlay.ko").write_bytes(b"")
    with pytest.raises(HostNotReadyError, match=r"overlay\.ko is damaged"):
        await build_initramfs(kernel, home)
    assert list(home.initramfs.iterdir()) == []
