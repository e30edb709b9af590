"""A warm `open_sandbox` beside a bare script that restores the same template; first programs; leaving; cancelling."""

from __future__ import annotations

import statistics
import subprocess
import time

import trio

from benchmarks import bare
from benchmarks.figures import Figure, Samples
from trio_sandbox import open_sandbox
from trio_sandbox.files import closing_descriptor
from trio_sandbox.home import Home
from trio_sandbox.machine import MachinePlan
from trio_sandbox.vm.templates import OpenTemplate, TemplateStore

PYTHON = ("python3", ["-c", "print(1)"])
SUSTAINED = 100


async def measure(home: Home, repeats: int) -> list[Figure]:
    """The baseline first."""
    async with open_sandbox("bench", image=bare.IMAGE, home=home):
        pass  # the template is there from now on
    samples = Samples("ms")
    plan = await bare.make_plan(home)
    store = TemplateStore(home.folder("templates"))
    assert plan.base is not None
    with closing_descriptor(plan.base), store.opened(plan.template_key) as template:
        assert template is not None
        for _ in range(repeats):
            await _one_round(plan, template, samples)
            await _cancel_round(home, samples)
    return samples.figures()


async def _one_round(plan: MachinePlan, template: OpenTemplate, samples: Samples) -> None:
    with bare.cloned(plan, template) as (machine, took):
        samples.add("bare script, clone, to ready", took)
        for session, name in (
            (1, "bare script, first python3 -c print(1)"),
            (2, "bare script, second python3 -c print(1)"),
        ):
            samples.add(name, bare.execute(machine.agent, session, (b"python3", b"-c", b"print(1)")))
        samples.add("raw port, ping", statistics.median(bare.ping(machine.agent) for _ in range(20)))
    began = time.perf_counter()
    async with open_sandbox("bench", image=bare.IMAGE, home=plan.home) as sandbox:
        entered = time.perf_counter()
        samples.add("open_sandbox, warm, to ready", (entered - began) * 1e3)
        for name in ("first python3 -c print(1)", "second python3 -c print(1)"):
            began = time.perf_counter()
            await sandbox.exec(*PYTHON)
            samples.add(name, (time.perf_counter() - began) * 1e3)
        began = time.perf_counter()
        await sandbox.exec("true")
        samples.add("exec true", (time.perf_counter() - began) * 1e3)
        left = time.perf_counter()
    samples.add("leaving the block", (time.perf_counter() - left) * 1e3)
    began = time.perf_counter()
    subprocess.run(["true"], check=True)  # noqa: ASYNC221 - the baseline is a plain blocking call
    samples.add("subprocess.run(['true']) on the host", (time.perf_counter() - began) * 1e3)


async def _cancel_round(home: Home, samples: Samples) -> None:
    """From the cancel to the moment when the block has been left and all is gone: while creating, and while running."""
    for name, delay in (("cancel to gone, creating", 0.025), ("cancel to gone, running", 0.5)):
        cancelled = 0.0
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def cancel(scope: trio.CancelScope = scope, delay: float = delay) -> None:
                    nonlocal cancelled
                    await trio.sleep(delay)
                    cancelled = time.perf_counter()
                    scope.cancel()

                async with open_sandbox("bench", image=bare.IMAGE, home=home) as sandbox:
                    await sandbox.shell("while :; do :; done")
        samples.add(name, (time.perf_counter() - cancelled) * 1e3)


async def measure_sustained(home: Home) -> list[Figure]:
    """Warm creates one after another, per second, beside the bare script's, each over the same number."""
    samples = Samples("/s")
    plan = await bare.make_plan(home)
    store = TemplateStore(home.folder("templates"))
    assert plan.base is not None
    with closing_descriptor(plan.base), store.opened(plan.template_key) as template:
        assert template is not None
        began = time.perf_counter()
        for _ in range(SUSTAINED):
            with bare.cloned(plan, template):
                pass
        samples.add("bare script, clones in a row", SUSTAINED / (time.perf_counter() - began))
    began = time.perf_counter()
    for _ in range(SUSTAINED):
        async with open_sandbox("bench", image=bare.IMAGE, home=home):
            pass
    samples.add("open_sandbox, warm, in a row", SUSTAINED / (time.perf_counter() - began))
    return samples.figures()
