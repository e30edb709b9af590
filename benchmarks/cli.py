"""The command line: from the start of the program to its end, beside a Python that does nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.figures import Figure, Limit, Samples
from trio_sandbox.home import Home

NOTHING = "python -c pass"
LIMITS = {"trio-sandbox --help": 100.0, "trio-sandbox ls": 150.0}
"""Milliseconds."""


def measure(home: Home, repeats: int) -> tuple[dict[str, list[Figure]], list[Limit]]:
    """Tables by title, the baseline first, and what is promised of them."""
    samples = Samples("ms")
    environment = {**os.environ, "TRIO_SANDBOX_HOME": str(home.root)}
    programs = {
        NOTHING: ["-c", "pass"],
        **{name: ["-m", "trio_sandbox", *name.split()[1:]] for name in LIMITS},
    }
    for turn in range(2 * repeats + 1):
        for name, words in programs.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True, env=environment)
            if turn:  # the first brings the files into memory
                samples.add(name, (time.perf_counter() - began) * 1e3)
    figures = samples.figures()
    limits = [Limit(f"{one.name}, ms", one.median, most=LIMITS[one.name]) for one in figures if one.name in LIMITS]
    return {"Command line": figures}, limits
