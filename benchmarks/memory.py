"""Private memory of the VMMs of many sandboxes: idle, and after a fixed mix of programs."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import trio

from benchmarks import bare
from benchmarks.figures import Figure, Samples
from trio_sandbox import Sandbox, open_sandbox
from trio_sandbox.home import Home

SANDBOXES = 32
SETTLE = 2.0
"""Seconds for idle guests to finish what their start began."""
MIX = (
    ("python3", ["-c", "print(sum(i * i for i in range(200000)))"]),
    ("sh", ["-c", "ls -lR /usr/lib/python3 > /tmp/list; sort /tmp/list | tail -1"]),
    ("sh", ["-c", "head -c 8000000 /dev/urandom | sha256sum"]),
)


async def measure(home: Home) -> list[Figure]:
    """Megabytes per sandbox. No baseline: the bounds are absolute."""
    samples = Samples("MB")
    async with AsyncExitStack() as stack:
        sandboxes = [
            await stack.enter_async_context(open_sandbox(f"bench-{number}", image=bare.IMAGE, home=home))
            for number in range(SANDBOXES)
        ]
        await trio.sleep(SETTLE)
        for sandbox in sandboxes:
            samples.add("private memory, idle", private_mb(sandbox))
        for sandbox in sandboxes[:8]:
            for command, args in MIX:
                await sandbox.exec(command, args)
            samples.add("private memory, after a mix of programs", private_mb(sandbox))
    return samples.figures()


def private_mb(sandbox: Sandbox) -> float:
    """What only this sandbox's VMM holds: its private pages, clean and dirty."""
    return private_mb_of(sandbox._control.machine.pid)  # type: ignore[attr-defined]


def private_mb_of(pid: int) -> float:
    """The same of any process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
