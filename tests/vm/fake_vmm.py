"""Programs that stand in for QEMU: they take its command line and do one thing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from trio_sandbox.vm.command import MachineSpec
from trio_sandbox.vm.supervise import Build, Sockets

PRELUDE = f"""#!{sys.executable} -I
import os, re, signal, sys, time
agent, console, monitor = (
    int(re.search(rf"id={{name}},fd=(\\d+)", " ".join(sys.argv)).group(1)) for name in ("agent", "console", "monitor")
)
here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "pids"), "a") as pids:
    print(os.getpid(), file=pids)
"""
SIGN = "os.write(agent, b'x')\n"
LAST = "time.sleep(1000)\n"


def fake_vmm(folder: Path, *body: str) -> Build:
    """A spec builder whose VMM runs `body`. Its pids are lines of the file `pids` beside it."""
    program = folder / "vmm"
    program.write_text(PRELUDE + "".join(body))
    program.chmod(0o755)

    def build(sockets: Sockets) -> MachineSpec:
        return MachineSpec(
            qemu=program,
            kernel=Path("/none"),
            initramfs=Path("/none"),
            acceleration="tcg",
            tsc_khz=0,
            cpus=1,
            memory_mib=128,
            console=sockets.console,
            monitor=sockets.monitor,
            agent=sockets.agent,
        )

    return build


def pids(folder: Path) -> list[int]:
    """The processes that have been a fake VMM in `folder`."""
    path = folder / "pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))
