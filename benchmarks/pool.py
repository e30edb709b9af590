"""A lease from a warm pool, and `Sandbox.create` with a process of its own, beside a bare cold boot of the same run;
and many creations at once, which must all come about in order, and leave nothing.
"""

from __future__ import annotations

import time
from pathlib import Path

import trio

from benchmarks import bare
from benchmarks.figures import Figure, Limit, Samples
from trio_sandbox import HostLimitError, Sandbox, SandboxError, open_pool, open_sandbox
from trio_sandbox.files import closing_descriptor
from trio_sandbox.home import Home

COLD_BOOTS = 5
CREATES = 100
DEADLINE = 600.0
"""Seconds that each of the many may wait for room."""
SETTLE = 0.3
"""Seconds for a guest to finish what its start began, before the next thing is measured."""

COLD, LEASE, CREATE = "bare QEMU, cold, to the agent's first byte", "lease from a warm pool", "Sandbox.create, warm"


async def measure(home: Home, repeats: int) -> tuple[list[Figure], list[Limit]]:
    """The baseline first."""
    samples = Samples("ms")
    plan = await bare.make_plan(home)
    assert plan.base is not None
    with closing_descriptor(plan.base):
        for _ in range(min(repeats, COLD_BOOTS)):
            samples.add(COLD, await bare.cold_boot(plan))
    async with await Sandbox.create("bench", image=bare.IMAGE, ephemeral=True):
        pass  # the template is there from now on, and the fork server runs
    for _ in range(repeats):
        await _create(samples)
    async with open_pool("bench", image=bare.IMAGE, home=home, warm_pool=2) as pool:
        for _ in range(repeats):
            while pool.statistics().ready < 2:
                await trio.sleep(SETTLE)
            began = time.perf_counter()
            async with pool.lease() as sandbox:
                samples.add(LEASE, (time.perf_counter() - began) * 1e3)
                began = time.perf_counter()
                await sandbox.exec("true")
                samples.add("first exec true in a lease", (time.perf_counter() - began) * 1e3)
    figures = {figure.name: figure for figure in samples.figures()}
    cold = figures[COLD]
    return list(figures.values()), [
        Limit.at_most(0.01, figures[LEASE], cold),
        Limit.at_most(0.06, figures[CREATE], cold),
    ]


async def _create(samples: Samples) -> None:
    began = time.perf_counter()
    async with await Sandbox.create("bench", image=bare.IMAGE, ephemeral=True):
        samples.add(CREATE, (time.perf_counter() - began) * 1e3)
    await trio.sleep(SETTLE)


async def measure_creates(home: Home) -> tuple[list[Figure], list[Limit]]:
    """All at once, each with a program; the one that is alone first. Milliseconds from the request to ready."""
    samples, failures = Samples("ms"), list[SandboxError]()
    async with open_sandbox("bench", image=bare.IMAGE, home=home):
        pass
    await _timed("bench", "one alone", samples)
    before = _left(home)
    began = time.perf_counter()

    async def one(number: int) -> None:
        try:
            await _timed(f"bench-{number}", f"each of {CREATES}", samples)
        except SandboxError as error:
            failures.append(error)
            print(f"failed: {error}")

    async with trio.open_nursery() as nursery:
        for number in range(CREATES):
            nursery.start_soon(one, number)
    samples.add(f"all {CREATES}, to their ends", (time.perf_counter() - began) * 1e3)
    late = sum(isinstance(error, HostLimitError) for error in failures)
    return samples.figures(), [
        Limit(f"of {CREATES} creations, failed but for their deadline", len(failures) - late, most=0),
        Limit(f"of {CREATES} creations, failed by their deadline", late, most=0),
        Limit(f"processes, sockets and files left by {CREATES} creations", len(_left(home) - before), most=0),
    ]


async def _timed(name: str, title: str, samples: Samples) -> None:
    began = time.perf_counter()
    sandbox = await Sandbox.create(name, image=bare.IMAGE, ephemeral=True, admission_timeout=DEADLINE)
    async with sandbox:
        samples.add(title, (time.perf_counter() - began) * 1e3)
        await sandbox.exec("true")


def _left(home: Home) -> set[str]:
    """Processes that have something of the data folder open, and the files in it."""
    found = {str(path) for path in home.root.rglob("*") if not path.is_dir()}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(entry.readlink()).startswith(f"{home.root}/") for entry in (process / "fd").iterdir()):
                found.add(str(process))
        except OSError:  # it has ended meanwhile
            continue
    return found
