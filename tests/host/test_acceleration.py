"""The probe believes KVM only after a boot; programs that play QEMU show it each way that a boot can go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from trio_sandbox.home import Home
from trio_sandbox.host.acceleration import (
    PROBE_DEADLINE,
    Acceleration,
    cpu_model,
    measure_tsc,
    probe_acceleration,
    probe_spec,
    remembered_acceleration,
)
from trio_sandbox.host.kernel import Kernel
from trio_sandbox.host.qemu import Qemu
from trio_sandbox.vm.command import qemu_argv

from .conftest import Program, appears

pytestmark = pytest.mark.anyio

RECORD = "open(os.path.dirname(sys.argv[0]) + '/pids', 'a').write(f'{os.getpid()}\\n')\n"
ABORTS = RECORD + "sys.exit('qemu: error: failed to set MSR 0x10a to 0x69\\nmore')"
ABORTS_SILENTLY = RECORD + "sys.exit(1)"
SPINS = RECORD + "while True: time.sleep(60)"
BOOTS = (
    RECORD
    + "word = next(word for word in sys.argv if word.startswith('socket,id=agent,fd='))\n"
    + "os.write(int(word.rpartition('=')[2]), b'x')\n"
    + "while True: time.sleep(60)"
)


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A file that opens, as /dev/kvm does where it does not work."""
    path = tmp_path / "kvm"
    path.touch()
    return path


def qemu_from(path: Path) -> Qemu:
    return Qemu(path, "0.0")


def assert_all_gone(fake: Path, starts: int) -> None:
    """Every process that played QEMU was reaped: a zombie would still have its number."""
    pids = [int(line) for line in (fake.parent / "pids").read_text().split()]
    assert len(pids) == starts
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def probe(
    kernel: Kernel, home: Home, fake: Path, device: Path, *, force: bool = False, deadline: float = 20
) -> Acceleration:
    initramfs = home.initramfs / "test.cpio"
    initramfs.touch()
    return await probe_acceleration(
        kernel, initramfs, home, force=force, qemu=qemu_from(fake), device=device, deadline=deadline
    )


async def test_a_guest_that_boots(kernel: Kernel, home: Home, program: Program, device: Path) -> None:
    fake = program("qemu", BOOTS)
    found = await probe(kernel, home, fake, device)
    assert (found.name, found.verdict) == ("kvm", "booted")
    assert_all_gone(fake, 1)


async def test_qemu_aborts_at_once(kernel: Kernel, home: Home, program: Program, device: Path) -> None:
    fake = program("qemu", ABORTS)
    found = await probe(kernel, home, fake, device)
    assert (found.name, found.verdict) == ("tcg", "aborted")
    assert found.reason == "QEMU gave up under KVM: qemu: error: failed to set MSR 0x10a to 0x69"
    assert_all_gone(fake, 1)


async def test_qemu_aborts_without_a_word(kernel: Kernel, home: Home, program: Program, device: Path) -> None:
    fake = program("qemu", ABORTS_SILENTLY)
    assert "it said nothing" in (await probe(kernel, home, fake, device)).reason


async def test_a_guest_that_spins_for_ever(kernel: Kernel, home: Home, program: Program, device: Path) -> None:
    fake = program("qemu", SPINS)
    found = await probe(kernel, home, fake, device, deadline=1.5)
    assert (found.name, found.verdict) == ("tcg", "timed_out")
    assert "deadline of 1.5 s" in found.reason
    assert_all_gone(fake, 1)


async def test_a_cancelled_probe_kills_and_remembers_nothing(
    kernel: Kernel, home: Home, program: Program, device: Path
) -> None:
    fake = program("qemu", SPINS)
    with trio.move_on_after(10) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(probe, kernel, home, fake, device)
            await appears(fake.parent / "pids")
            nursery.cancel_scope.cancel()
    assert not scope.cancelled_caught
    assert_all_gone(fake, 1)
    assert not (home.host / "acceleration.json").exists()


async def test_no_device_needs_no_boot(kernel: Kernel, home: Home, program: Program, tmp_path: Path) -> None:
    fake = program("qemu", BOOTS)
    found = await probe(kernel, home, fake, tmp_path / "absent")
    assert (found.name, found.verdict) == ("tcg", "absent")
    assert not (fake.parent / "pids").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
async def test_no_right_needs_no_boot(kernel: Kernel, home: Home, program: Program, device: Path) -> None:
    device.chmod(0)
    fake = program("qemu", BOOTS)
    found = await probe(kernel, home, fake, device)
    assert (found.name, found.verdict) == ("tcg", "forbidden")
    assert not (fake.parent / "pids").exists()


async def test_remembered_until_asked_again(kernel: Kernel, home: Home, program: Program, device: Path) -> None:
    fake = program("qemu", ABORTS)
    first = await probe(kernel, home, fake, device)
    assert await probe(kernel, home, fake, device) == first
    assert_all_gone(fake, 1)
    await probe(kernel, home, fake, device, force=True)
    assert_all_gone(fake, 2)


@pytest.mark.parametrize("change", ["qemu", "kernel", "device"])
async def test_probed_again_when_something_changed(
    change: str, kernel: Kernel, home: Home, program: Program, device: Path
) -> None:
    fake = program("qemu", ABORTS)
    await probe(kernel, home, fake, device)
    if change == "qemu":
        program("qemu", ABORTS + " + 1")
    elif change == "kernel":
        kernel.image.write_bytes(b"another kernel")
    else:
        device = device.rename(device.with_name("kvm2"))
    await probe(kernel, home, fake, device)
    assert len((fake.parent / "pids").read_text().split()) == 2


async def test_an_unknown_verdict_is_probed_again(kernel: Kernel, home: Home, program: Program, device: Path) -> None:
    fake = program("qemu", ABORTS)
    await probe(kernel, home, fake, device)
    path = home.host / "acceleration.json"
    path.write_text(path.read_text().replace('"aborted"', '"of another version"'))
    assert (await probe(kernel, home, fake, device)).verdict == "aborted"
    assert_all_gone(fake, 2)


async def test_recalled_without_running_anything(kernel: Kernel, home: Home, program: Program) -> None:
    fake = program("qemu", ABORTS)
    assert remembered_acceleration(kernel, qemu_from(fake), home) is None
    found = await probe(kernel, home, fake, Path("/dev/kvm"))
    assert remembered_acceleration(kernel, qemu_from(fake), home) == found


async def test_tsc_is_measured_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await measure_tsc(home)
    if os.uname().machine == "x86_64":
        assert 100_000 < first < 100_000_000
    else:
        assert first == 0
    monkeypatch.setattr("trio_sandbox.host.acceleration.host_program_path", lambda: Path("/nowhere"))
    assert await measure_tsc(home) == first


async def test_the_probe_boots_what_sandboxes_boot(kernel: Kernel, home: Home) -> None:
    argv = qemu_argv(probe_spec(kernel, home.initramfs / "a.cpio", qemu_from(Path("/q")), 3, 4, 5))
    assert argv[argv.index("-accel") + 1] == "kvm"
    assert argv[argv.index("-kernel") + 1] == str(kernel.image)
    assert "socket,id=agent,fd=5" in argv


@pytest.mark.vm
@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="there is no /dev/kvm to try")
async def test_this_machine_gives_a_verdict_in_time() -> None:
    """Whatever KVM does here, the probe ends and leaves nothing; which verdict is a fact about the machine."""
    from trio_sandbox.host.ready import host_assets

    own = Home.default()
    assets = await host_assets(own)
    with trio.fail_after(PROBE_DEADLINE + 10):
        found = await probe_acceleration(assets.kernel, assets.initramfs, own, force=True)
    assert found.verdict in ("booted", "aborted", "timed_out")
    assert (found.name == "kvm") == (found.verdict == "booted")


def test_cpu_model_reads_the_first_cpu_only(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nvendor_id\t: V\nmodel name\t: M\n\nmodel name\t: other\n")
    assert cpu_model(tmp_path / "cpuinfo") == "V / M"
