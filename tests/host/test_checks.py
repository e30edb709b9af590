"""Doctor's findings: each failing line says what to do, and nothing is mended on the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trio_sandbox.admission.admitted import admitted
from trio_sandbox.home import Home
from trio_sandbox.host.checks import Finding, examine, ready
from trio_sandbox.host.kernel import Kernel
from trio_sandbox.host.packages import emulator_name
from trio_sandbox.host.ready import host_assets

from .conftest import Program

pytestmark = pytest.mark.anyio

QEMU = "print('QEMU emulator version 7.2.22') if sys.argv[1] == '--version' else sys.exit('no KVM today')"


@pytest.fixture
def qemu(program: Program) -> Path:
    return program(emulator_name(os.uname().machine), QEMU)


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_sandbox.host.checks.base_image_present", lambda home: True)


def by_component(findings: list[Finding]) -> dict[str, Finding]:
    assert len({finding.component for finding in findings}) == len(findings)
    for finding in findings:
        assert bool(finding.remedy) == (finding.status == "failed"), finding
        assert finding.detail
    return {finding.component: finding for finding in findings}


@pytest.mark.usefixtures("base")
async def test_a_ready_machine(kernel: Kernel, home: Home, qemu: Path) -> None:
    await host_assets(home)
    findings = await examine(home)
    found = by_component(findings)
    assert [name for name, finding in found.items() if finding.status == "failed"] == []
    assert ready(findings)
    assert found["QEMU"].detail == f"7.2.22 at {qemu}"
    assert found["acceleration"].detail.startswith("tcg: ")
    assert kernel.release in found["kernel"].detail
    assert found["limits"].detail.startswith("memory 0 of ")
    assert found["networking"].status == "note"


async def test_an_empty_data_folder(home: Home, qemu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_sandbox.host.checks.base_image_present", lambda home: False)
    findings = await examine(home)
    found = by_component(findings)
    assert not ready(findings)
    for component in ("kernel", "initramfs", "acceleration", "base image"):
        assert found[component].status == "failed"
    assert list(home.initramfs.iterdir()) == []


@pytest.mark.usefixtures("base", "kernel")
async def test_not_probed_yet_is_not_probed_by_looking(home: Home, qemu: Path) -> None:
    assert by_component(await examine(home))["acceleration"].status == "failed"
    assert not (home.host / "acceleration.json").exists()


@pytest.mark.usefixtures("base", "kernel")
async def test_reprobe(home: Home, qemu: Path) -> None:
    await host_assets(home)
    path = home.host / "acceleration.json"
    before = path.stat().st_ino
    await examine(home)
    assert path.stat().st_ino == before
    assert by_component(await examine(home, reprobe=True))["acceleration"].status == "ok"
    assert path.stat().st_ino != before


@pytest.mark.usefixtures("base", "kernel")
async def test_a_timeout_says_how_to_try_again(home: Home, qemu: Path) -> None:
    await host_assets(home)
    path = home.host / "acceleration.json"
    verdict = '"verdict": "aborted"' if "aborted" in path.read_text() else '"verdict": "absent"'
    path.write_text(path.read_text().replace(verdict, '"verdict": "timed_out"'))
    assert "doctor --reprobe" in by_component(await examine(home))["acceleration"].detail


@pytest.mark.usefixtures("base", "kernel")
async def test_no_programs(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_sandbox.host.qemu.find_program", lambda name: None)
    monkeypatch.setattr("trio_sandbox.host.checks.find_program", lambda name: None)
    found = by_component(await examine(home))
    for component in ("QEMU", "tar2sqfs", "mke2fs"):
        assert found[component].status == "failed"
    assert "squashfs-tools-ng" in found["tar2sqfs"].remedy


@pytest.mark.usefixtures("base", "qemu")
async def test_a_named_kernel_that_cannot_be(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_SANDBOX_KERNEL", "/nowhere/vmlinuz")
    assert "/nowhere/vmlinuz" in by_component(await examine(home))["kernel"].detail


@pytest.mark.usefixtures("base", "qemu")
async def test_a_data_folder_that_others_may_change(home: Home) -> None:
    home.host.touch()
    home.root.chmod(0o777)
    found = by_component(await examine(home))["data folder"]
    assert found.status == "failed"
    assert found.remedy == f"chmod 700 {home.root}"


@pytest.mark.usefixtures("base", "qemu")
async def test_a_full_disk(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_sandbox.host.checks.FREE_DISK_MIN", 1 << 60)
    assert by_component(await examine(home))["free disk"].status == "failed"


@pytest.mark.usefixtures("base")
async def test_limits_that_are_faulty_and_limits_that_are_in_use(kernel: Kernel, home: Home, qemu: Path) -> None:
    path = home.root / "limits.toml"
    path.write_text("boots = 0\n")
    found = by_component(await examine(home))
    assert found["limits"].status == "failed"
    assert "boots" in found["limits"].detail
    path.write_text("memory = 1000\nboots = 3\n")
    async with admitted(home, 300, timeout=0):
        found = by_component(await examine(home))
    assert found["limits"].detail.startswith("memory 300 of 1000, boots 1 of 3, sandboxes 1 of 1000 (")
