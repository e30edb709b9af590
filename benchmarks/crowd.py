"""Sixteen clients of one sandbox: what one that never reads and one that is killed cost the others.

The same fourteen work in both halves of a round: this process's own handle, and thirteen in a process of their own. In
the second half two more take the channels that are left.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from benchmarks import bare
from benchmarks.crowd_client import mix
from benchmarks.figures import Figure, Limit, Samples
from trio_sandbox import Sandbox, open_sandbox
from trio_sandbox.home import Home

OTHERS = 13
SECONDS = 4.0
QUIET, TROUBLED = "14 clients at work", "and one that never reads, one that is killed"


async def measure(home: Home, rounds: int) -> tuple[dict[str, list[Figure]], list[Limit]]:
    """The 95th percentile of the fourteen's pings, and this process's peak of memory; and what was promised of them."""
    pings, memory = Samples("ms"), Samples("MB")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "relay"
        async with open_sandbox("bench-crowd", image=bare.IMAGE, home=home, listen=path) as sandbox:
            await _half(sandbox, path, troubled=True)  # from here on the emulator has seen all the code
            for _ in range(rounds):
                for name, troubled in ((QUIET, False), (TROUBLED, True)):
                    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
                    taken = await _half(sandbox, path, troubled=troubled)
                    pings.add(f"ping, 95th percentile: {name}", statistics.quantiles(taken, n=20)[-1])
                    memory.add(f"relay's process, peak: {name}", _peak_mb())
    figures = pings.figures()
    return {"Crowd": figures, "Crowd: memory": memory.figures()}, [Limit.at_most(1.5, figures[1], figures[0])]


async def _half(sandbox: Sandbox, path: Path, *, troubled: bool) -> list[float]:
    """Milliseconds of every ping of the fourteen."""
    pings: list[float] = []
    async with _clients(path, OTHERS, SECONDS, *(["stalled"] if troubled else [])) as others:
        async with trio.open_nursery() as nursery:
            if troubled:
                nursery.start_soon(_killed_client, path)
            nursery.start_soon(_work, sandbox, pings)
            assert others.stdout is not None
            said = b"".join([piece async for piece in others.stdout])
            nursery.cancel_scope.cancel()
    assert others.returncode == 0
    return [*pings, *json.loads(said)]


async def _work(sandbox: Sandbox, pings: list[float]) -> None:
    while True:
        await mix(sandbox, OTHERS, pings)


async def _killed_client(path: Path) -> None:
    """Killed in the midst of its work."""
    async with _clients(path, 1, 10 * SECONDS) as process:
        await trio.sleep(SECONDS / 2)
        process.kill()


@asynccontextmanager
async def _clients(path: Path, count: int, seconds: float, *words: str) -> AsyncIterator[trio.Process]:
    """Clients in a process of their own, all of them admitted; their process is gone afterwards."""
    command = [sys.executable, "-m", "benchmarks.crowd_client", str(path), str(count), str(seconds), *words]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert await process.stdout.receive_some(1) == b"!"
        yield process
    except BaseException:
        process.kill()
        raise
    finally:
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


def _peak_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
