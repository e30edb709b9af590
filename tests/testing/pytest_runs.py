"""pytest, run by itself on test files that a test writes; with this project's plugin, wherever that is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import attrs

PLUGIN = ("-p", "no:trio_sandbox", "-p", "trio_sandbox.testing.plugin")
"""By its module alone: the entry point is there only once the package is installed."""
STRICT = ("-p", "no:cacheprovider", "--strict-markers", "--strict-config", "-W", "error", "-o", "addopts=")


@attrs.frozen
class Run:
    """One that is over. passed, failed, errors: how many tests."""

    status: int
    text: str
    passed: int
    failed: int
    errors: int


def command(folder: Path, *arguments: str) -> list[str]:
    """The words of a run of the tests in `folder`."""
    where = ("--rootdir", str(folder), "--basetemp", str(folder / "base"))
    return [sys.executable, "-m", "pytest", *PLUGIN, *STRICT, *where, *arguments, str(folder)]


def environment() -> dict[str, str]:
    """What a run finds around it: nothing of the pytest that starts it."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}


def write(folder: Path, **files: str) -> None:
    """Write `name="code"` as name.py; a name of an ini file is `ini`."""
    for name, code in files.items():
        path = folder / ("pytest.ini" if name == "ini" else f"{name}.py")
        path.write_text(textwrap.dedent(code))


def run(folder: Path, *arguments: str, **files: str) -> Run:
    """Write the files and run them to the end."""
    write(folder, **files)
    done = subprocess.run(
        command(folder, *arguments), capture_output=True, text=True, cwd=folder, env=environment(), timeout=250
    )
    text = done.stdout + done.stderr
    return Run(done.returncode, text, *(_count(done.stdout, word) for word in ("passed", "failed", "errors?")))


def _count(text: str, word: str) -> int:
    found = re.findall(rf"(\d+) {word}\b", text.splitlines()[-1] if text else "")
    return int(found[0]) if found else 0
