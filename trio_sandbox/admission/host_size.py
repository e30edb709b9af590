"""How much of the host there is for this process: memory within its control group, processors that it may run on."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")


def memory_mib(meminfo: Path = MEMINFO, membership: Path = MEMBERSHIP, root: Path = CGROUP_ROOT) -> int:
    """MiB of memory: of the host, or of the control group that allows least, ours or one that it is in."""
    words = meminfo.read_text().partition("MemTotal:")[2].split()
    limits = [int(words[0]) << 10, *_cgroup_limits(membership, root)]
    return min(limits) >> 20


def processors() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0))


def _cgroup_limits(membership: Path, root: Path) -> list[int]:
    """Bytes that the control groups allow which the process is in, of either version; none where there are none."""
    found = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        steps = Path(path.lstrip("/"))
        for folder in (steps, *steps.parents):
            try:
                found.append(int((base / folder / name).read_text()))
            except (OSError, ValueError):  # "max", or the root group, which has no such file
                continue
    return [limit for limit in found if limit > 0]
