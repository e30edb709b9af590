"""A program: pull an image into an empty data folder, look it up again, and tell what both cost as JSON.

It is a process of its own so that its memory is that of a pull and of nothing else.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import trio

from trio_sandbox.home import Home
from trio_sandbox.image.cache.leases import leased
from trio_sandbox.image.cache.pull import prepare_pulled


async def _pull(reference: str, home: Home) -> dict[str, float]:
    with leased(home) as lease:
        began = time.perf_counter()
        await prepare_pulled(reference, home, lease)
        pulled = time.perf_counter()
        peak = _peak_mb()
        again = time.perf_counter()
        await prepare_pulled(reference, home, lease)
        return {"pull_s": pulled - began, "look_up_ms": (time.perf_counter() - again) * 1e3, "peak_mb": peak}


def _peak_mb() -> float:
    """Most memory that this process has held. What getrusage says counts the process that started this one."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(trio.run(_pull, sys.argv[1], Home(Path(sys.argv[2])))))
