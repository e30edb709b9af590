"""A cold `open_sandbox` beside a bare QEMU with the same kernel, initramfs and command line, in turn."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Sequence

import trio

from benchmarks.figures import Figure
from trio_sandbox import open_sandbox
from trio_sandbox.home import Home
from trio_sandbox.host.ready import HostAssets, host_assets
from trio_sandbox.image.rootfs import prepare_rootfs
from trio_sandbox.image.upper import create_upper
from trio_sandbox.vm.command import Disk, MachineSpec, qemu_argv

IMAGE = "local/base"


async def measure(repeats: int) -> tuple[Figure, Sequence[Figure]]:
    """The baseline and the figures."""
    home = Home.default()
    assets = await host_assets(home)
    bare, ready, executed, gone = [], [], [], []
    for _ in range(repeats):
        bare.append(await bare_boot(assets, home))
        began = time.perf_counter()
        async with open_sandbox("bench", image=IMAGE, home=home) as sandbox:
            entered = time.perf_counter()
            await sandbox.exec("true")
            done = time.perf_counter()
        ended = time.perf_counter()
        ready.append((entered - began) * 1e3)
        executed.append((done - entered) * 1e3)
        gone.append((ended - done) * 1e3)
    baseline = Figure("bare QEMU, to the agent's first byte", "ms", tuple(bare))
    return baseline, [
        baseline,
        Figure("open_sandbox, cold, to ready", "ms", tuple(ready)),
        Figure("first exec of `true`", "ms", tuple(executed)),
        Figure("leaving the block", "ms", tuple(gone)),
    ]


async def bare_boot(assets: HostAssets, home: Home) -> float:
    """Milliseconds from the start of QEMU to the first byte of the agent, by blocking system calls alone."""
    rootfs = await prepare_rootfs(IMAGE, home)
    base, upper = os.open(rootfs.path, os.O_RDONLY), await create_upper(home)
    pairs = [socket.socketpair() for _ in range(3)]
    console, monitor, agent = (theirs.fileno() for _, theirs in pairs)
    spec = MachineSpec(
        qemu=assets.qemu,
        kernel=assets.kernel.image,
        initramfs=assets.initramfs,
        acceleration=assets.acceleration.name,
        tsc_khz=assets.acceleration.tsc_khz,
        cpus=1,
        memory_mib=512,
        console=console,
        monitor=monitor,
        agent=agent,
        disks=(Disk("base", base, readonly=True), Disk("upper", upper, readonly=False)),
        arch=os.uname().machine,
    )
    began = time.perf_counter()
    with subprocess.Popen(qemu_argv(spec), pass_fds=spec.descriptors, stderr=subprocess.DEVNULL) as process:
        pairs[2][0].settimeout(60)
        pairs[2][0].recv(1)
        took = (time.perf_counter() - began) * 1e3
        process.kill()
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    os.close(base)
    os.close(upper)
    return took


def run(repeats: int) -> tuple[Figure, Sequence[Figure]]:
    return trio.run(measure, repeats)
