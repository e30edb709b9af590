"""A cold `open_sandbox` beside a bare QEMU with the same kernel, initramfs and command line, in turn."""

from __future__ import annotations

import time

from benchmarks import bare
from benchmarks.figures import Figure, Samples
from trio_sandbox import open_sandbox
from trio_sandbox.files import closing_descriptor
from trio_sandbox.home import Home


async def measure(home: Home, repeats: int) -> list[Figure]:
    """The baseline first."""
    samples = Samples("ms")
    plan = await bare.make_plan(home)
    assert plan.base is not None
    with closing_descriptor(plan.base):
        for _ in range(repeats):
            samples.add("bare QEMU, cold, to the agent's first byte", await bare.cold_boot(plan))
            began = time.perf_counter()
            async with open_sandbox("bench", image=bare.IMAGE, home=home, warm=False):
                samples.add("open_sandbox, cold, to ready", (time.perf_counter() - began) * 1e3)
    return samples.figures()
