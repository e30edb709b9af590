"""What a boot gets from the caches, and what it is told when something is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.home import Home
from trio_sandbox.host.kernel import Kernel
from trio_sandbox.host.packages import emulator_name
from trio_sandbox.host.qemu import find_qemu
from trio_sandbox.host.ready import host_assets

from .conftest import Program

pytestmark = pytest.mark.anyio

FAKE = """
open(os.path.dirname(sys.argv[0]) + "/ran", "a").write(sys.argv[1] + "\\n")
if sys.argv[1] == "--version":
    print("QEMU emulator version 7.2.22 (Debian 1:7.2)")
else:
    sys.exit("no KVM today")
"""


@pytest.fixture
def qemu(program: Program) -> Path:
    return program(emulator_name(os.uname().machine), FAKE)


async def test_everything_and_nothing_twice(kernel: Kernel, home: Home, qemu: Path) -> None:
    assets = await host_assets(home)
    assert (assets.qemu, assets.qemu_version, assets.kernel) == (qemu, "7.2.22", kernel)
    assert assets.initramfs.is_file()
    assert assets.acceleration.name == "tcg"
    ran = (qemu.parent / "ran").read_text()
    assert await host_assets(home) == assets
    assert (qemu.parent / "ran").read_text() == ran


async def test_no_kernel(home: Home, qemu: Path) -> None:
    with pytest.raises(HostNotReadyError) as caught:
        await host_assets(home)
    assert caught.value.component == "kernel"
    assert "trio-sandbox setup" in caught.value.remedy


async def test_no_qemu(kernel: Kernel, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_sandbox.host.qemu.find_program", lambda name: None)
    with pytest.raises(HostNotReadyError) as caught:
        await host_assets(home)
    assert caught.value.component == "QEMU"


async def test_a_new_qemu_is_asked_for_its_version(home: Home, program: Program, qemu: Path) -> None:
    assert (await find_qemu(home)).version == "7.2.22"
    program(qemu.name, FAKE.replace("7.2.22", "10.0"))
    assert (await find_qemu(home)).version == "10.0"


@pytest.mark.parametrize("body", ["sys.exit('cannot open shared object file')", "print('something else')"])
async def test_a_qemu_that_does_not_run(body: str, home: Home, program: Program, qemu: Path) -> None:
    program(qemu.name, body)
    with pytest.raises(HostNotReadyError, match="does not tell its version"):
        await find_qemu(home)
