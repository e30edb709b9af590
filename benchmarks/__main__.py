"""`make bench`: run every benchmark, print its tables, write `benchmarks/results/latest.json` and `latest.svg`."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

import attrs
import trio

from benchmarks import cold_boot, memory, peers, warm_boot
from benchmarks.figures import Figure, table
from benchmarks.plot import bar_chart
from trio_sandbox.home import Home
from trio_sandbox.host.ready import host_assets

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Parse the arguments, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10, help="times that each thing is measured (10)")
    trio.run(_measure, parser.parse_args().repeats)


async def _measure(repeats: int) -> None:
    home = Home.default()
    assets = await host_assets(home)
    machine = (
        f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}, "
        f"QEMU {assets.qemu_version} with {assets.acceleration.name}, guest kernel {assets.kernel.release}"
    )
    print(machine + "\n", flush=True)
    cold = await cold_boot.measure(home, repeats)
    show("Cold", cold, cold[0])
    warm = await warm_boot.measure(home, repeats)
    show("Warm, against the bare cold boot", warm, cold[0])
    show("Warm, against the bare script", warm, warm[0])
    containers, left_out = peers.measure(repeats)
    if containers:
        show("Containers on this host", containers, cold[0])
    print("".join(f"not measured: {sentence}\n" for sentence in left_out))
    rate = await warm_boot.measure_sustained(home)
    show("Sustained", rate, rate[0])
    private = await memory.measure(home)
    show("Memory", private, private[0])
    RESULTS.mkdir(exist_ok=True)
    results = {"cold": cold, "warm": warm, "containers": containers, "sustained": rate, "memory": private}
    document = {"machine": machine, **{name: [attrs.asdict(one) for one in many] for name, many in results.items()}}
    (RESULTS / "latest.json").write_text(json.dumps(document, indent=2) + "\n")
    (RESULTS / "latest.svg").write_text(bar_chart(f"Milliseconds, {machine}", [*cold, *warm]))
    print(f"written: {RESULTS}/latest.json, latest.svg")


def show(title: str, figures: list[Figure], baseline: Figure) -> None:
    """Print one table."""
    print(f"## {title}\n\n{table(figures, baseline)}\n", flush=True)


if __name__ == "__main__":
    main()
