"""Forks of running sandboxes beside the bare cold boot of the same machine; how long parents stand still; memory."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import trio

from benchmarks import bare
from benchmarks.figures import Figure, Limit, Samples
from benchmarks.memory import SETTLE, private_mb_of
from trio_sandbox import Sandbox, open_sandbox
from trio_sandbox.files import closing_descriptor
from trio_sandbox.home import Home
from trio_sandbox.process.spawn import fork_server

COLD = "bare QEMU, cold, to the agent's first byte"
FIRST, AGAIN = "first fork of a parent, to the child's first reply", "fork, to the child's first reply"
BUSY = "fork of a parent that has changed 60 MB, to the child's first reply"
STILL, BUSY_STILL = "parent stands still", "parent that has changed 60 MB stands still"
CHILDREN = 8
WARM_UP = "python3 -c 'print(1)'"
MUCH = "head -c 60000000 /dev/urandom > /dev/shm/much"


async def measure(home: Home, repeats: int) -> tuple[dict[str, list[Figure]], list[Limit]]:
    """Tables by title, the baseline first, and what is promised of them."""
    await trio.to_thread.run_sync(fork_server)
    times, still = Samples("ms"), Samples("ms")
    plan = await bare.make_plan(home)
    assert plan.base is not None
    with closing_descriptor(plan.base):
        for _ in range(max(2, repeats // 2)):
            times.add(COLD, await bare.cold_boot(plan))
            await _one_parent(home, times, still)
    stillness = still.figures()
    figures = {figure.name: figure for figure in times.figures()}
    cold = figures[COLD]
    limits = [
        Limit.at_most(0.2, figures[AGAIN], cold),
        Limit.at_most(0.5, figures[FIRST], cold),
        *(Limit(f"{figure.name}, ms", figure.median, most=50.0) for figure in stillness),
    ]
    tables = {"Fork": list(figures.values()), "Fork: parents": stillness}
    return tables | {"Fork: memory": await _memory(home)}, limits


async def _one_parent(home: Home, times: Samples, still: Samples) -> None:
    async with open_sandbox("bench", image=bare.IMAGE, home=home) as sandbox:
        await sandbox.shell(WARM_UP)
        for name in (FIRST, AGAIN, AGAIN):
            times.add(name, await _forked(sandbox))
        began = time.perf_counter()
        children = await sandbox.fork(CHILDREN)
        times.add(f"fork({CHILDREN}), each", (time.perf_counter() - began) * 1e3 / CHILDREN)
        for child in children:
            async with child:
                pass
        still.add(STILL, await _stillness(sandbox))
        await sandbox.shell(MUCH)
        times.add(BUSY, await _forked(sandbox))
        still.add(BUSY_STILL, await _stillness(sandbox))


async def _forked(sandbox: Sandbox) -> float:
    """Milliseconds to a child that answers."""
    began = time.perf_counter()
    async with await sandbox.fork() as child:
        await child.ping()
        return (time.perf_counter() - began) * 1e3


async def _stillness(sandbox: Sandbox) -> float:
    """Milliseconds that the parent stands still."""
    async with sandbox._control.fork_source() as source:
        return float(source["stood_still"]) * 1e3


async def _memory(home: Home) -> list[Figure]:
    samples = Samples("MB")
    async with AsyncExitStack() as stack:
        parent = await stack.enter_async_context(open_sandbox("bench", image=bare.IMAGE, home=home))
        await parent.shell(WARM_UP)
        children = await parent.fork(CHILDREN)
        for child in children:
            await stack.enter_async_context(child)
        await trio.sleep(SETTLE)
        samples.add("private memory, parent", private_mb_of(parent._control.machine.pid))  # type: ignore[attr-defined]
        for child in children:
            samples.add("private memory, fork", _vmm_mb(child))
    return samples.figures()


def _vmm_mb(child: Sandbox) -> float:
    """Of the VMM beneath a child's own process."""
    process = child._control.ownership.pid  # type: ignore[attr-defined]
    with open(f"/proc/{process}/task/{process}/children") as file:
        return sum(private_mb_of(int(pid)) for pid in file.read().split())
