"""`make bench`: run every benchmark, print its tables, write `benchmarks/results/latest.json` and `latest.svg`."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

import attrs
import trio

from benchmarks import cli, cold_boot, crowd, fork, memory, peers, pool, pull, relay, test_kit, warm_boot
from benchmarks.figures import Figure, Limit, limits_table, table
from benchmarks.plot import bar_chart
from trio_sandbox.home import Home
from trio_sandbox.host.ready import host_assets

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Parse the arguments, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10, help="times that each thing is measured (10)")
    parser.add_argument("--only", choices=PARTS, help="measure one part, and write nothing")
    arguments = parser.parse_args()
    trio.run(_measure, arguments.repeats, arguments.only)


async def _measure(repeats: int, only: str | None) -> None:
    home = Home.default()
    assets = await host_assets(home)
    machine = (
        f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}, "
        f"QEMU {assets.qemu_version} with {assets.acceleration.name}, guest kernel {assets.kernel.release}"
    )
    print(machine + "\n", flush=True)
    report = Report(machine)
    for name, part in PARTS.items():
        if only in (None, name):
            await part(report, home, repeats)
    if only is None:
        report.write()


@attrs.define
class Report:
    """What was measured so far; printed as it comes."""

    machine: str
    figures: dict[str, list[Figure]] = attrs.Factory(dict)
    limits: list[Limit] = attrs.Factory(list)

    def add(self, name: str, title: str, figures: list[Figure], baseline: Figure) -> None:
        """Take figures under a name and print them."""
        self.figures[name] = figures
        print(f"## {title}\n\n{table(figures, baseline)}\n", flush=True)

    def promise(self, limits: list[Limit]) -> None:
        """Take limits and print them."""
        self.limits += limits
        print(f"{limits_table(limits)}\n", flush=True)

    def take(self, measured: tuple[dict[str, list[Figure]], list[Limit]], heading: str = "") -> None:
        """Tables by title, each with its baseline first, and what is promised of them. heading: before each title."""
        tables, limits = measured
        for title, figures in tables.items():
            self.add(title.lower(), f"{heading}{title}", figures, figures[0])
        self.promise(limits)

    def write(self) -> None:
        """Everything into the folder of results."""
        RESULTS.mkdir(exist_ok=True)
        document: dict[str, object] = {"machine": self.machine}
        document |= {name: [attrs.asdict(one) for one in many] for name, many in self.figures.items()}
        document["limits"] = [{**attrs.asdict(one), "met": one.met} for one in self.limits]
        (RESULTS / "latest.json").write_text(json.dumps(document, indent=2) + "\n")
        times = [one for many in self.figures.values() for one in many if one.unit == "ms"]
        (RESULTS / "latest.svg").write_text(bar_chart(f"Milliseconds, {self.machine}", times))
        print(f"written: {RESULTS}/latest.json, latest.svg")


async def _starts(report: Report, home: Home, repeats: int) -> None:
    cold = await cold_boot.measure(home, repeats)
    report.add("cold", "Cold", cold, cold[0])
    warm = await warm_boot.measure(home, repeats)
    report.add("warm", "Warm, against the bare script", warm, warm[0])
    print(f"## Warm, against the bare cold boot\n\n{table(warm, cold[0])}\n", flush=True)
    containers, left_out = peers.measure(repeats)
    if containers:
        report.add("containers", "Containers on this host, against the bare cold boot", containers, cold[0])
    print("".join(f"not measured: {sentence}\n" for sentence in left_out))
    rate = await warm_boot.measure_sustained(home)
    report.add("sustained", "Sustained", rate, rate[0])


async def _memory(report: Report, home: Home, repeats: int) -> None:
    private = await memory.measure(home)
    report.add("memory", "Memory", private, private[0])


async def _relay(report: Report, home: Home, repeats: int) -> None:
    report.take(await relay.measure(home, repeats), heading="Relay: ")


async def _crowd(report: Report, home: Home, repeats: int) -> None:
    report.take(await crowd.measure(home, repeats))


async def _pull(report: Report, home: Home, repeats: int) -> None:
    report.take(await trio.to_thread.run_sync(pull.measure, home, repeats))


async def _tests(report: Report, home: Home, repeats: int) -> None:
    report.take(await trio.to_thread.run_sync(test_kit.measure, home, repeats))


async def _fork(report: Report, home: Home, repeats: int) -> None:
    report.take(await fork.measure(home, repeats))


async def _cli(report: Report, home: Home, repeats: int) -> None:
    report.take(await trio.to_thread.run_sync(cli.measure, home, repeats))


async def _pool(report: Report, home: Home, repeats: int) -> None:
    figures, limits = await pool.measure(home, repeats)
    report.add("pool", "Ready sandboxes, against the bare cold boot", figures, figures[0])
    report.promise(limits)


async def _creates(report: Report, home: Home, repeats: int) -> None:
    figures, limits = await pool.measure_creates(home)
    report.add("creates", f"{pool.CREATES} creations at once", figures, figures[0])
    report.promise(limits)


PARTS = {
    "starts": _starts,
    "memory": _memory,
    "fork": _fork,
    "relay": _relay,
    "crowd": _crowd,
    "pull": _pull,
    "cli": _cli,
    "tests": _tests,
    "pool": _pool,
    "creates": _creates,
}
"""What `--only` may name, in their order."""


if __name__ == "__main__":
    main()
