"""`make bench`: run every benchmark, print its table, write `benchmarks/results/latest.json`."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

import attrs

from benchmarks import cold_boot
from benchmarks.figures import table

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Parse the arguments, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10, help="times that each thing is measured (10)")
    arguments = parser.parse_args()
    baseline, figures = cold_boot.run(arguments.repeats)
    machine = (
        f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}"
    )
    print(machine)
    print(table(figures, baseline))
    RESULTS.mkdir(exist_ok=True)
    document = {"machine": machine, "cold_boot": [attrs.asdict(figure) for figure in figures]}
    (RESULTS / "latest.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
