"""The VMM's command line, as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from trio_sandbox.vm.command import SECCOMP, Backing, Disk, MachineSpec, Port, kernel_command_line, qemu_argv

SPEC = MachineSpec(
    qemu=Path("/usr/bin/qemu-system-x86_64"),
    kernel=Path("/k/vmlinuz"),
    initramfs=Path("/i/initramfs"),
    acceleration="tcg",
    tsc_khz=2_500_000,
    cpus=2,
    memory_mib=256,
    console=10,
    monitor=11,
    agent=12,
    disks=(Disk("base", 13, readonly=True), Disk("upper", 14, readonly=False)),
    name="worker",
)


def options(argv: list[str]) -> dict[str, list[str]]:
    """Option to its values, in order."""
    found: dict[str, list[str]] = {}
    for number, word in enumerate(argv):
        if word.startswith("-"):
            value = argv[number + 1] if number + 1 < len(argv) and not argv[number + 1].startswith("-") else ""
            found.setdefault(word, []).append(value)
    return found


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("-M", "microvm"),
        ("-accel", "tcg,tb-size=64"),
        ("-cpu", "max,erms=off,fsrm=off,smap=off"),
        ("-smp", "2"),
        ("-m", "256M"),
        ("-kernel", "/k/vmlinuz"),
        ("-initrd", "/i/initramfs"),
        ("-sandbox", SECCOMP),
        ("-display", "none"),
        ("-serial", "chardev:console"),
        ("-mon", "chardev=monitor,mode=control"),
        ("-name", "worker,process=trio-sandbox-vm"),
    ],
)
def test_option(option: str, value: str) -> None:
    assert options(qemu_argv(SPEC))[option] == [value]


def test_switches_without_a_value() -> None:
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(qemu_argv(SPEC))


def test_the_seccomp_filter_denies_all_that_it_can() -> None:
    assert SECCOMP.split(",") == [
        "on",
        *(f"{what}=deny" for what in ("obsolete", "elevateprivileges", "spawn", "resourcecontrol")),
    ]


def test_sockets_are_inherited_descriptors_and_never_paths() -> None:
    assert options(qemu_argv(SPEC))["-chardev"] == [
        "socket,id=console,fd=10",
        "socket,id=monitor,fd=11",
        "socket,id=agent,fd=12",
    ]
    assert SPEC.descriptors == (10, 11, 12, 13, 14)


def test_more_ports_stand_beside_the_agents() -> None:
    spec = attrs.evolve(SPEC, ports=(Port("one", 20), Port("two", 21)))
    found = options(qemu_argv(spec))
    assert found["-chardev"][3:] == ["socket,id=port0,fd=20", "socket,id=port1,fd=21"]
    assert found["-device"][-2:] == [
        "virtserialport,chardev=port0,name=one",
        "virtserialport,chardev=port1,name=two",
    ]
    assert spec.descriptors == (*SPEC.descriptors, 20, 21)


def disks(*found: Disk) -> list[dict[str, Any]]:
    return [json.loads(node) for node in options(qemu_argv(attrs.evolve(SPEC, disks=found)))["-blockdev"]]


def test_disks() -> None:
    base, upper = disks(*SPEC.disks)
    assert (base["node-name"], base["file"]["filename"], base["read-only"]) == ("disk0", "/proc/self/fd/13", True)
    assert (upper["node-name"], upper["file"]["filename"], upper["read-only"]) == ("disk1", "/proc/self/fd/14", False)
    for node in (base, upper):
        assert node["driver"] == "raw" and "backing" not in node and node["cache"]["no-flush"]
    devices = options(qemu_argv(SPEC))["-device"]
    assert "virtio-blk-device,drive=disk0,serial=base,rerror=report,werror=report" in devices


def test_a_durable_disk_keeps_the_guests_flushes() -> None:
    (upper,) = disks(Disk("upper", 14, readonly=False, durable=True))
    assert not upper["cache"]["no-flush"]


def test_a_disk_image_is_opened_as_the_files_that_were_checked_and_as_no_others() -> None:
    chain = Disk("root", 13, readonly=False, format="qcow2", backing=(Backing(20, "qcow2"), Backing(21, "raw")))
    alone = Disk("root", 13, readonly=False, format="vmdk")
    first, second = disks(chain, alone)
    assert (first["driver"], first["read-only"]) == ("qcow2", False)
    middle = first["backing"]
    assert (middle["driver"], middle["read-only"], middle["file"]["filename"]) == ("qcow2", True, "/proc/self/fd/20")
    assert (middle["backing"]["driver"], middle["backing"]["file"]["filename"]) == ("raw", "/proc/self/fd/21")
    assert second["backing"] is None
    assert attrs.evolve(SPEC, disks=(chain,)).descriptors == (10, 11, 12, 13, 20, 21)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "console=ttyS0 quiet panic=-1 reboot=t tsc_early_khz=2500000 mitigations=off tsc=reliable"),
        ({"tsc_khz": 0}, "console=ttyS0 quiet panic=-1 reboot=t mitigations=off tsc=reliable"),
        ({"acceleration": "kvm", "tsc_khz": 0}, "console=ttyS0 quiet panic=-1 reboot=t"),
        ({"arch": "aarch64"}, "console=ttyAMA0 quiet panic=-1 mitigations=off tsc=reliable"),
        (
            {"extra_kernel_parameters": ("x=1",), "tsc_khz": 0},
            "console=ttyS0 quiet panic=-1 reboot=t mitigations=off tsc=reliable x=1",
        ),
    ],
)
def test_kernel_command_line(change: dict[str, Any], line: str) -> None:
    assert kernel_command_line(attrs.evolve(SPEC, **change)) == line


def test_kvm() -> None:
    found = options(qemu_argv(attrs.evolve(SPEC, acceleration="kvm")))
    assert found["-accel"] == ["kvm"] and found["-cpu"] == ["host"]
