"""The VMM's command line: a pure function of what the machine is to be.

Rule: no I/O here, and no decision that depends on the running host; the caller has found all that out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import attrs

from trio_sandbox.vm.guest_memory import Pages

AGENT_PORT = "trio_sandbox.agent"
"""Name of the virtio-serial port by which the agent finds its stream."""

SECCOMP = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
"""QEMU's own system call filter, with all of its deny lists."""

TRANSLATION_CACHE_MIB = 64
"""TCG's cache of translated code. Without a bound it grows past 200 MB; 32 MB costs speed."""
OVERHEAD_MIB = 32
"""What QEMU itself and the process that runs the sandbox take, at most, of their own."""


def memory_cost_mib(guest_mib: int, acceleration: str) -> int:
    """MiB of the host's memory that a machine may come to take. Most take much less: what the guest never touches, and
    what it has in common with its template, is not there twice.
    """
    return guest_mib + OVERHEAD_MIB + (0 if acceleration == "kvm" else TRANSLATION_CACHE_MIB)


@attrs.frozen
class Backing:
    """A file beneath a disk, which holds what the one above it does not."""

    descriptor: int
    format: str


@attrs.frozen
class Disk:
    """A virtio-blk disk over a descriptor that the VMM inherits.

    `serial` is how the guest finds it. `durable`: the guest's flushes reach the host's disk; for a disk that ends with
    its machine they need not. `format`: QEMU's name of how it is stored. `backing`: what it stands on, uppermost first.
    """

    serial: str
    descriptor: int
    readonly: bool
    durable: bool = False
    format: str = "raw"
    backing: tuple[Backing, ...] = ()

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self.descriptor, *(one.descriptor for one in self.backing))


@attrs.frozen
class Port:
    """One more virtio-serial port beside the agent's, over a socket that the VMM inherits."""

    name: str
    descriptor: int


@attrs.frozen
class Memory:
    """A file behind the guest's memory. `shared`: the guest writes to the file (a template in the making); else
    copy-on-write.
    """

    descriptor: int
    shared: bool


@attrs.frozen
class Restore:
    """The state of a machine that ran: a descriptor of the state of its devices, and what its memory has beyond the
    file behind it. `bare`: the state of the devices is nothing but that, without the machine's own description.
    """

    state: int
    pages: Pages | None = None
    bare: bool = False


@attrs.frozen
class MachineSpec:
    """A machine, as far as its VMM must know. Descriptors keep their numbers in the VMM."""

    qemu: Path
    kernel: Path
    initramfs: Path | None
    """None for a clone that is given a stub of a kernel."""
    acceleration: Literal["kvm", "tcg"]
    tsc_khz: int
    """Rate of the host's TSC; without it about one cold boot in twenty hangs under TCG. 0: not x86."""
    cpus: int
    memory_mib: int
    console: int
    """Socket descriptor for the serial console."""
    monitor: int
    """Socket descriptor for QMP."""
    agent: int
    """Socket descriptor for the agent port."""
    disks: tuple[Disk, ...] = ()
    ports: tuple[Port, ...] = ()
    memory: Memory | None = None
    """None: memory of the VMM's own."""
    restore: Restore | None = None
    """What to go on from, instead of booting."""
    kernel_descriptor: int | None = None
    """Descriptor that `kernel` is a path to, if it is."""
    name: str = "sandbox"
    arch: str = "x86_64"
    extra_kernel_parameters: tuple[str, ...] = ()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that the VMM must inherit."""
        memory = (self.memory.descriptor,) if self.memory else ()
        kernel = (self.kernel_descriptor,) if self.kernel_descriptor is not None else ()
        disks = [descriptor for disk in self.disks for descriptor in disk.descriptors]
        ports = [port.descriptor for port in self.ports]
        return (self.console, self.monitor, self.agent, *memory, *kernel, *disks, *ports)


def kernel_command_line(spec: MachineSpec) -> str:
    """The guest kernel's parameters.

    A panic reboots at once (`panic=-1`) and a reboot ends QEMU (`-no-reboot`), so that a crash is seen as soon as it
    happens.
    """
    words = [f"console={'ttyAMA0' if spec.arch == 'aarch64' else 'ttyS0'}", "quiet", "panic=-1"]
    if spec.arch == "x86_64":
        words.append("reboot=t")
        if spec.tsc_khz:
            words.append(f"tsc_early_khz={spec.tsc_khz}")
    if spec.acceleration == "tcg":
        # What the guest's kernel does against speculation costs a tenth under emulation, and there shields nothing.
        words.append("mitigations=off")
        # Else one boot in eight distrusts the emulated TSC and falls back to a clock of 4 ms.
        words.append("tsc=reliable")
    return " ".join((*words, *spec.extra_kernel_parameters))


def qemu_argv(spec: MachineSpec) -> list[str]:
    """The whole argument vector, the program first."""
    return [
        str(spec.qemu),
        *("-name", f"{spec.name},process=trio-sandbox-vm"),
        *("-M", _machine(spec)),
        *("-accel", _accelerator(spec)),
        *("-cpu", _cpu(spec)),
        *("-smp", str(spec.cpus)),
        *("-m", f"{spec.memory_mib}M"),
        *_memory(spec),
        *("-kernel", str(spec.kernel)),
        *(() if spec.initramfs is None else ("-initrd", str(spec.initramfs))),
        *("-append", kernel_command_line(spec)),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *("-sandbox", SECCOMP),
        *_incoming(spec.restore),
        *("-chardev", f"socket,id=console,fd={spec.console}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=monitor,fd={spec.monitor}", "-mon", "chardev=monitor,mode=control"),
        *_disks(spec.disks),
        *("-device", "virtio-rng-device"),
        *("-device", "virtio-serial-device"),
        *("-chardev", f"socket,id=agent,fd={spec.agent}"),
        *("-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"),
        *_ports(spec.ports),
    ]


def _incoming(restore: Restore | None) -> tuple[str, ...]:
    if restore is None:
        return ()
    return ("-incoming", "defer", *(("-global", "migration.send-configuration=off") if restore.bare else ()))


def _machine(spec: MachineSpec) -> str:
    # ACPI stays on: Debian's kernels find virtio-mmio by it alone, and power off by it.
    machine = "virt" if spec.arch == "aarch64" else "microvm"
    return machine if spec.memory is None else f"{machine},memory-backend=memory"


def _memory(spec: MachineSpec) -> list[str]:
    if spec.memory is None:
        return []
    share = "on" if spec.memory.shared else "off"
    path = f"/proc/self/fd/{spec.memory.descriptor}"
    return ["-object", f"memory-backend-file,id=memory,size={spec.memory_mib}M,mem-path={path},share={share}"]


def _cpu(spec: MachineSpec) -> str:
    if spec.acceleration == "kvm":
        return "host"
    if spec.arch != "x86_64":
        return "max"
    # Features that are fast in hardware and slow under emulation: string instructions (the kernel then copies in plain
    # loops) and the supervisor's access prevention (two more instructions, each the end of a translated block, around
    # every copy to and from programs). Together a quarter of a clone's start and a fifth of everything after it.
    return "max,erms=off,fsrm=off,smap=off"


def _accelerator(spec: MachineSpec) -> str:
    return "kvm" if spec.acceleration == "kvm" else f"tcg,tb-size={TRANSLATION_CACHE_MIB}"


def _disks(disks: tuple[Disk, ...]) -> list[str]:
    words: list[str] = []
    for number, disk in enumerate(disks):
        # report: a full host disk is an I/O error in the guest, not a machine that stops for ever.
        device = f"virtio-blk-device,drive=disk{number},serial={disk.serial},rerror=report,werror=report"
        words += ["-blockdev", json.dumps(_block_node(f"disk{number}", disk)), "-device", device]
    return words


def _block_node(name: str, disk: Disk) -> dict[str, object]:
    """The whole chain of files, each with its format: nothing is guessed, and no name in an image is looked up."""
    node: dict[str, object] | None = None
    for backing in reversed(disk.backing):
        node = _layer(backing.format, backing.descriptor, node, readonly=True)
    return {
        "node-name": name,
        **_layer(disk.format, disk.descriptor, node, readonly=disk.readonly),
        "cache": {"direct": False, "no-flush": not disk.durable},
    }


def _layer(format: str, descriptor: int, beneath: dict[str, object] | None, *, readonly: bool) -> dict[str, object]:
    # Opened anew through /proc: QEMU's own fdsets refuse the read-only look that it takes at a writable image.
    file = {"driver": "file", "filename": f"/proc/self/fd/{descriptor}", "discard": "unmap"}
    layer = {"driver": format, "read-only": readonly, "discard": "unmap", "file": file}
    # null: there is none, whatever the header says.
    return layer if format == "raw" else {**layer, "backing": beneath}


def _ports(ports: tuple[Port, ...]) -> list[str]:
    words: list[str] = []
    for number, port in enumerate(ports):
        words += ["-chardev", f"socket,id=port{number},fd={port.descriptor}"]
        words += ["-device", f"virtserialport,chardev=port{number},name={port.name}"]
    return words
