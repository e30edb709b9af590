"""How fast guests can run here: under KVM where it works, by software emulation (TCG) where it does not.

KVM is believed only after the real kernel has booted under it. There are hosts where /dev/kvm opens, a virtual
machine can be made, and a Linux guest then spins for ever; on others QEMU aborts. Both are answers that cost a few
seconds once: the verdict is remembered with all that it depends on. Only a yes needs a boot: where there
is no /dev/kvm, or no right to open it, the answer is plain.

The rate of the host's TSC is remembered beside it, for one run of the host's own kernel.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import attrs
import trio

from trio_sandbox.binaries import host_program_path
from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.files import anonymous_file
from trio_sandbox.home import Home
from trio_sandbox.host.facts import identity, recall, remember
from trio_sandbox.host.kernel import Kernel
from trio_sandbox.host.qemu import Qemu, find_qemu
from trio_sandbox.tools import run_tool
from trio_sandbox.vm.command import MachineSpec, qemu_argv

KVM_DEVICE = Path("/dev/kvm")

PROBE_DEADLINE = 6.0
"""Seconds for a guest under KVM to reach its agent. A kernel that KVM really runs needs well under one."""

PROBE_MEMORY_MIB = 256

REAP_TIMEOUT = 10.0
"""Seconds for the kernel to let go of a killed QEMU; one that hangs in the kernel for longer is left to it."""

STDERR_KEPT = 400

Name = Literal["kvm", "tcg"]
Verdict = Literal["booted", "absent", "forbidden", "aborted", "timed_out"]


@attrs.frozen
class Acceleration:
    """What guests run on, and why.

    `verdict`: "booted" (a guest booted under KVM), "absent" (no /dev/kvm), "forbidden" (no right to open it),
    "aborted" (QEMU gave up), "timed_out" (a guest started and never arrived). `tsc_khz`: rate of the host's TSC in
    kHz, 0 on machines without one.
    """

    name: Name
    verdict: Verdict
    reason: str
    tsc_khz: int


def remembered_acceleration(kernel: Kernel, qemu: Qemu, home: Home) -> Acceleration | None:
    """The verdict of an earlier probe, if it still applies; None when a probe is needed. Runs no program."""
    finding = recall(_verdict_path(home), _verdict_depends_on(kernel, qemu))
    rate = recall(_tsc_path(home), _tsc_depends_on())
    if finding is None or rate is None:
        return None
    found = _verdict_of(finding)
    tsc_khz = rate.get("tsc_khz")
    if found is None or not isinstance(tsc_khz, int):
        return None
    return attrs.evolve(found, tsc_khz=tsc_khz)


async def probe_acceleration(
    kernel: Kernel,
    initramfs: Path,
    home: Home,
    *,
    force: bool = False,
    qemu: Qemu | None = None,
    device: Path = KVM_DEVICE,
    deadline: float = PROBE_DEADLINE,
) -> Acceleration:
    """Find out what guests run on: the remembered answer if it still applies and not `force`, else by booting one
    under KVM.

    deadline: seconds for that boot. Raises HostNotReadyError when QEMU or our host program is missing. A KVM that
    does not work is an answer and not an error. Cancellation: the guest is killed and reaped, nothing is remembered.
    """
    qemu = qemu or await find_qemu(home)
    depends_on = _verdict_depends_on(kernel, qemu, device)
    finding = None if force else recall(_verdict_path(home), depends_on)
    found = None if finding is None else _verdict_of(finding)
    if found is None:
        found = await _probe_kvm(kernel, initramfs, home, qemu, device, deadline)
        remember(
            _verdict_path(home), depends_on, {"name": found.name, "verdict": found.verdict, "reason": found.reason}
        )
    return attrs.evolve(found, tsc_khz=await measure_tsc(home))


async def measure_tsc(home: Home) -> int:
    """The rate of the host's TSC in kHz, measured once for each start of the host; 0 on machines that have none."""
    depends_on = _tsc_depends_on()
    known = recall(_tsc_path(home), depends_on)
    if known is not None and isinstance(khz := known.get("tsc_khz"), int):
        return khz
    khz = 0
    if os.uname().machine == "x86_64":
        measured = await run_tool([host_program_path(), "tsc-khz"])
        if not measured.stdout.strip().isdigit() or not 100_000 <= int(measured.stdout) <= 100_000_000:
            raise HostNotReadyError(
                "TSC", f"a rate of {measured.stdout[:40]!r} kHz was measured", "run `trio-sandbox setup` again"
            )
        khz = int(measured.stdout)
    remember(_tsc_path(home), depends_on, {"tsc_khz": khz})
    return khz


def _verdict_path(home: Home) -> Path:
    return home.host / "acceleration.json"


def _tsc_path(home: Home) -> Path:
    return home.host / "tsc.json"


def _verdict_depends_on(kernel: Kernel, qemu: Qemu, device: Path = KVM_DEVICE) -> dict[str, object]:
    host = os.uname()
    return {
        "host_kernel": [host.release, host.version, host.machine],
        "cpu": cpu_model(),
        "qemu": [*identity(qemu.path), qemu.version],
        "kvm": [str(device), *_access(device)],
        "guest_kernel": [kernel.release, *identity(kernel.image)],
    }


def _tsc_depends_on() -> dict[str, object]:
    # A host that is itself a virtual machine may wake up on another CPU, but only with another boot id or not knowing
    # it.
    return {"boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "cpu": cpu_model()}


def _access(device: Path) -> tuple[bool, bool]:
    return device.exists(), os.access(device, os.R_OK | os.W_OK)


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Vendor, family, model and name of the first CPU. Only the file's beginning is read: with many CPUs it is long."""
    with cpuinfo.open("rb") as file:
        lines = file.read(4096).decode(errors="replace").partition("\n\n")[0].splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    wanted = (
        "vendor_id",
        "cpu family",
        "model",
        "model name",
        "stepping",
        "CPU implementer",
        "CPU part",
        "CPU variant",
    )
    return " / ".join(fields[key] for key in wanted if key in fields)


def _verdict_of(finding: dict[str, object]) -> Acceleration | None:
    name, verdict, reason = (finding.get(key) for key in ("name", "verdict", "reason"))
    if name == "kvm":
        known: Name = "kvm"
    elif name == "tcg":
        known = "tcg"
    else:
        return None
    for possible in get_args(Verdict):
        if verdict == possible and isinstance(reason, str):
            return Acceleration(known, possible, reason, 0)
    return None


async def _probe_kvm(
    kernel: Kernel, initramfs: Path, home: Home, qemu: Qemu, device: Path, deadline: float
) -> Acceleration:
    if not device.exists():
        return Acceleration("tcg", "absent", f"there is no {device}", 0)
    if not os.access(device, os.R_OK | os.W_OK):
        reason = f"this user may not open {device}; join the group that owns it, usually kvm, and log in again"
        return Acceleration("tcg", "forbidden", reason, 0)
    words = anonymous_file(home.scratch)
    try:
        started = trio.current_time()
        outcome = await _boot(kernel, initramfs, qemu, words, deadline)
        seconds = trio.current_time() - started
        said = os.pread(words, STDERR_KEPT, 0).decode(errors="replace").strip()
    finally:
        os.close(words)
    if outcome == "booted":
        return Acceleration("kvm", "booted", f"a guest booted under KVM in {seconds:.1f} s", 0)
    if outcome == "timed_out":
        reason = (
            f"a guest under KVM did not reach its agent within the deadline of {deadline:g} s, though {device} opens"
        )
        return Acceleration("tcg", "timed_out", reason, 0)
    said = said.splitlines()[0] if said else "it said nothing"
    return Acceleration("tcg", "aborted", f"QEMU gave up under KVM: {said}", 0)


async def _boot(kernel: Kernel, initramfs: Path, qemu: Qemu, words: int, deadline: float) -> Verdict:
    """Boot under KVM until the agent's first byte, QEMU's end or the deadline; the guest is gone afterwards."""
    port, port_far = socket.socketpair()
    with port, port_far, _unread_sockets() as (console, monitor):
        spec = probe_spec(kernel, initramfs, qemu, console, monitor, port_far.fileno())
        process = _start(spec, words)
        pidfd = os.pidfd_open(process.pid)  # before anything can reap it
        try:
            port_far.close()  # ours: now the end of QEMU is the end of the stream
            with trio.move_on_after(deadline):
                await trio.lowlevel.wait_readable(port)
                try:
                    return "booted" if port.recv(1) else "aborted"
                except ConnectionResetError:
                    return "aborted"
            return "timed_out"
        finally:
            process.kill()
            with trio.move_on_after(REAP_TIMEOUT, shield=True):
                await _reaped(process, pidfd)
            os.close(pidfd)


def probe_spec(kernel: Kernel, initramfs: Path, qemu: Qemu, console: int, monitor: int, agent: int) -> MachineSpec:
    """The machine that is booted to see whether KVM works: as sandboxes are, without disks."""
    return MachineSpec(
        qemu=qemu.path,
        kernel=kernel.image,
        initramfs=initramfs,
        acceleration="kvm",
        tsc_khz=0,  # under KVM the guest learns the rate from its host
        cpus=1,
        memory_mib=PROBE_MEMORY_MIB,
        console=console,
        monitor=monitor,
        agent=agent,
        name="probe",
        arch=os.uname().machine,
    )


@contextmanager
def _unread_sockets() -> Iterator[tuple[int, int]]:
    """Far ends for console and monitor, which the probe does not read: what a boot prints fits their buffers."""
    pairs = [socket.socketpair() for _ in range(2)]
    try:
        yield pairs[0][1].fileno(), pairs[1][1].fileno()
    finally:
        for end in (end for pair in pairs for end in pair):
            end.close()


def _start(spec: MachineSpec, words: int) -> subprocess.Popen[bytes]:
    # Popen here and not in a worker thread: the launcher ties QEMU's life to the thread that started it.
    argv = [str(host_program_path()), "launch", str(os.getpid()), "--", *qemu_argv(spec)]
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=words, stderr=words, pass_fds=spec.descriptors, cwd="/"
    )


async def _reaped(process: subprocess.Popen[bytes], pidfd: int) -> None:
    """Wait until the process is reaped. Cancellation: no effect."""
    while process.poll() is None:
        await trio.lowlevel.wait_readable(pidfd)
        await trio.sleep(0.001)  # a pidfd may be readable while some threads still end
