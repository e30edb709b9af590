"""A test that takes a fresh sandbox beside one that takes none, in one run of pytest, in turn.

What is measured is the whole of a test, fixtures before and after included. The first of each kind is left out: what a
session makes once for all its tests, fork server and template, falls to it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import Figure, Limit, Samples
from trio_sandbox.home import Home

LIMIT_MS = 150.0
KINDS = {
    "pytest-trio": ("pytest.mark.trio", '"trio"'),
    "anyio on Trio": ("pytest.mark.anyio", '"trio"'),
    "anyio on asyncio": ("pytest.mark.anyio", '"asyncio"'),
}

CONFTEST = """
import json, pathlib, time
import pytest

TOOK = []

@pytest.fixture
def anyio_backend():
    return {backend}

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    began = time.perf_counter()
    result = yield
    TOOK.append((item.name.rpartition("_")[0], (time.perf_counter() - began) * 1e3))
    return result

def pytest_sessionfinish():
    pathlib.Path(__file__).with_name("took.json").write_text(json.dumps(TOOK))
"""
ROUND = """
@{mark}
async def test_none_{number}():
    pass

@{mark}
async def test_fresh_{number}(sandbox):
    pass

@{mark}
async def test_used_{number}(sandbox):
    assert (await sandbox.exec("true")).success
"""


def measure(home: Home, rounds: int) -> tuple[dict[str, list[Figure]], list[Limit]]:
    """Tables by title, the baseline first; and what was promised."""
    tables, limits = {}, []
    for kind, (mark, backend) in KINDS.items():
        figures = _measured(home, rounds + 1, mark, backend)
        tables[f"Tests, {kind}"] = figures
        none, fresh, _ = figures
        limits.append(Limit(f"{fresh.name} less {none.name}, {kind}, ms", fresh.median - none.median, most=LIMIT_MS))
    return tables, limits


def _measured(home: Home, rounds: int, mark: str, backend: str) -> list[Figure]:
    names = {
        "test_none": "a test without a sandbox",
        "test_fresh": "a test with a fresh sandbox",
        "test_used": "one that runs `true` in it",
    }
    samples = Samples("ms")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "conftest.py").write_text(CONFTEST.format(backend=backend))
        rounds_code = "".join(ROUND.format(mark=mark, number=number) for number in range(rounds))
        (folder / "test_kit.py").write_text(f"import pytest\n{rounds_code}")
        plugin = ["-p", "no:trio_sandbox", "-p", "trio_sandbox.testing.plugin", "-p", "no:cacheprovider"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *plugin, f"--sandbox-home={home.root}", "--rootdir", name, name],
            check=True,
            stdout=subprocess.DEVNULL,
            env=environment,
        )
        took = json.loads((folder / "took.json").read_text())
    for test, milliseconds in took[len(names) :]:
        samples.add(names[test], milliseconds)
    return samples.figures()
