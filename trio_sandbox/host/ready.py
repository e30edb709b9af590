"""All that a boot needs from this machine, from what set-up left.

Nothing is installed here and no package manager runs. Only what follows from the rest is made again when it is
missing: the initial RAM file system after the agent was rebuilt, and the acceleration verdict after the machine
changed.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.home import Home
from trio_sandbox.host.acceleration import Acceleration, probe_acceleration, remembered_acceleration
from trio_sandbox.host.initramfs import build_initramfs
from trio_sandbox.host.kernel import Kernel, find_kernel
from trio_sandbox.host.qemu import find_qemu


@attrs.frozen
class HostAssets:
    """What every boot on this machine has in common."""

    qemu: Path
    qemu_version: str
    kernel: Kernel
    initramfs: Path
    acceleration: Acceleration


async def host_assets(home: Home, *, disk_root: bool = False) -> HostAssets:
    """The assets, in a few milliseconds when nothing has changed since the last call. disk_root: for a machine whose
    root is a disk image.

    Raises HostNotReadyError for the first thing that is missing, StorageError when the disk refuses. Cancellation:
    nothing half made.
    """
    qemu = await find_qemu(home)
    kernel = require_kernel(home)
    initramfs = await build_initramfs(kernel, home, disk_root=disk_root)
    acceleration = remembered_acceleration(kernel, qemu, home)
    if acceleration is None:
        acceleration = await probe_acceleration(kernel, initramfs, home, qemu=qemu)
    return HostAssets(qemu.path, qemu.version, kernel, initramfs, acceleration)


def require_kernel(home: Home) -> Kernel:
    """The guest kernel. Raises HostNotReadyError when there is none."""
    kernel = find_kernel(home)
    if kernel is None:
        raise HostNotReadyError("kernel", "no guest kernel has been fetched")
    return kernel
