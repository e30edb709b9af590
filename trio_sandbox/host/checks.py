"""What `trio-sandbox doctor` looks at: one finding a line, each with a remedy where something is wrong.

Nothing is installed, built or changed here; only the acceleration is probed, and only when that is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

import attrs

from trio_sandbox.admission.limits import LIMITS_FILE, RESOURCES, Limits
from trio_sandbox.admission.queue import Stage, Usage
from trio_sandbox.admission.register import Register
from trio_sandbox.errors import HostNotReadyError, InvalidConfigError, SandboxError
from trio_sandbox.home import Home
from trio_sandbox.host.acceleration import Acceleration, probe_acceleration, remembered_acceleration
from trio_sandbox.host.initramfs import initramfs_path
from trio_sandbox.host.kernel import Kernel
from trio_sandbox.host.packages import Requirement, emulator_name, find_program, requirements
from trio_sandbox.host.qemu import Qemu, find_qemu
from trio_sandbox.host.ready import require_kernel
from trio_sandbox.image.base import base_image_present

Status = Literal["ok", "failed", "note"]

RUN_SETUP = "run `trio-sandbox setup`"

FREE_DISK_MIN = 2 << 30
"""Bytes. An image of a gigabyte, its layers beside it."""


@attrs.frozen
class Finding:
    """One line of the table. `remedy` is empty unless `status` is "failed"; a "note" is true and nothing to mend."""

    component: str
    status: Status
    detail: str
    remedy: str = ""


async def examine(home: Home, *, reprobe: bool = False) -> list[Finding]:
    """All findings, in the order of the table. Never raises for what it finds; `reprobe` boots a guest to see whether
    KVM works.

    Cancellation: a guest that was being probed is gone.
    """
    qemu, qemu_finding = await _qemu(home)
    kernel, kernel_finding = _kernel(home)
    return [
        qemu_finding,
        await _acceleration(home, qemu, kernel, reprobe=reprobe),
        kernel_finding,
        _checked("initramfs", lambda: _initramfs(home, kernel)),
        *(
            _program(need)
            for need in requirements()
            if not need.build_only and need.name != emulator_name(os.uname().machine)
        ),
        _checked("base image", lambda: _base_image(home)),
        _checked("data folder", lambda: _data_folder(home)),
        _checked("free disk", lambda: _free_disk(home)),
        _checked("limits", lambda: _limits(home)),
        Finding("networking", "note", "not built yet: sandboxes have no network interface"),
    ]


def ready(findings: list[Finding]) -> bool:
    """Whether sandboxes can run here."""
    return all(finding.status != "failed" for finding in findings)


def _checked(component: str, check: Callable[[], Finding]) -> Finding:
    """The finding of `check`, or the failure that it met."""
    try:
        return check()
    except (SandboxError, OSError) as error:
        return _failure(component, error)


def _failure(component: str, error: Exception) -> Finding:
    if isinstance(error, HostNotReadyError):
        return Finding(component, "failed", error.problem, error.remedy)
    if isinstance(error, InvalidConfigError):
        return Finding(component, "failed", str(error), "mend the file")
    return Finding(component, "failed", str(error), RUN_SETUP)


async def _qemu(home: Home) -> tuple[Qemu | None, Finding]:
    try:
        qemu = await find_qemu(home)
    except (SandboxError, OSError) as error:
        return None, _failure("QEMU", error)
    return qemu, Finding("QEMU", "ok", f"{qemu.version} at {qemu.path}")


def _kernel(home: Home) -> tuple[Kernel | None, Finding]:
    try:
        kernel = require_kernel(home)
    except (SandboxError, OSError) as error:
        return None, _failure("kernel", error)
    return kernel, Finding("kernel", "ok", f"{kernel.release} from {kernel.package}")


async def _acceleration(home: Home, qemu: Qemu | None, kernel: Kernel | None, *, reprobe: bool) -> Finding:
    if qemu is None or kernel is None:
        return Finding("acceleration", "failed", "unknown without QEMU and a kernel", RUN_SETUP)
    try:
        if reprobe:
            initramfs = initramfs_path(kernel, home)
            if not initramfs.is_file():
                return Finding("acceleration", "failed", "cannot be probed without an initramfs", RUN_SETUP)
            found: Acceleration | None = await probe_acceleration(kernel, initramfs, home, force=True, qemu=qemu)
        else:
            found = remembered_acceleration(kernel, qemu, home)
    except (SandboxError, OSError) as error:
        return _failure("acceleration", error)
    if found is None:
        return Finding("acceleration", "failed", "not probed yet on this machine as it is now", RUN_SETUP)
    rate = f"; TSC {found.tsc_khz / 1e6:.2f} GHz" if found.tsc_khz else ""
    again = "; `trio-sandbox doctor --reprobe` tries again" if found.verdict == "timed_out" and not reprobe else ""
    return Finding("acceleration", "ok", f"{found.name}: {found.reason}{rate}{again}")


def _initramfs(home: Home, kernel: Kernel | None) -> Finding:
    if kernel is None:
        return Finding("initramfs", "failed", "unknown without a kernel", RUN_SETUP)
    path = initramfs_path(kernel, home)
    if not path.is_file():
        return Finding("initramfs", "failed", "not built for this kernel and guest agent", RUN_SETUP)
    return Finding("initramfs", "ok", f"{path.stat().st_size / 1e6:.1f} MB at {path}")


def _program(need: Requirement) -> Finding:
    found = next((path for program in need.programs if (path := find_program(program))), None)
    if found is None:
        return Finding(need.name, "failed", "not installed", f"{RUN_SETUP}, or install {', '.join(need.packages)}")
    return Finding(need.name, "ok", found)


def _base_image(home: Home) -> Finding:
    if not base_image_present(home):
        return Finding("base image", "failed", "local/base has not been built", RUN_SETUP)
    return Finding("base image", "ok", "local/base")


def _data_folder(home: Home) -> Finding:
    folder = home.host
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Finding(
            "data folder", "failed", f"{home.root} cannot be written", "mend its permissions, or set TRIO_SANDBOX_HOME"
        )
    mode = home.root.stat().st_mode & 0o777
    if mode & 0o022:  # what is inside has mode 0700, but others could put something else in its place
        detail = f"others may change what is in {home.root} (mode {mode:o})"
        return Finding("data folder", "failed", detail, f"chmod 700 {home.root}")
    return Finding("data folder", "ok", str(home.root))


def _free_disk(home: Home) -> Finding:
    room = os.statvfs(home.host)
    free = room.f_bavail * room.f_frsize
    detail = f"{free / 1e9:.1f} GB free at {home.root}"
    if free < FREE_DISK_MIN:
        return Finding(
            "free disk",
            "failed",
            detail,
            f"make room: {FREE_DISK_MIN / 1e9:.0f} GB are needed, or set TRIO_SANDBOX_HOME",
        )
    return Finding("free disk", "ok", detail)


def _limits(home: Home) -> Finding:
    """What all sandboxes may use together, and what they do."""
    limits = Limits.load(home)
    with Register.opened(home) as register:
        tickets = register.others()
    used = Usage.of(tickets)
    parts = [f"{name} {getattr(used, name)} of {getattr(limits, name)}" for name in RESOURCES]
    waiting = sum(ticket.stage is Stage.WAITING for ticket in tickets)
    detail = f"{', '.join(parts)} (memory in MiB; {LIMITS_FILE} sets them)" + (f"; {waiting} wait" if waiting else "")
    return Finding("limits", "ok", detail)
