"""Make a checkout ready to use: system packages, .venv, this package in it, and `trio-sandbox setup`.

Needs nothing but Python 3.11 and its standard library; `make` calls it before everything else. Safe to interrupt and to
repeat. When nothing is missing it only compares a few checksums and ends after some tens of milliseconds.

    python3 scripts/bootstrap.py             everything
    python3 scripts/bootstrap.py --venv      only what building and checking needs: no kernel, no image
    python3 scripts/bootstrap.py --tests     everything, and what only the tests need
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "bootstrap.json"
EXTRAS = "test,check,docs"


class Failed(Exception):
    """Set-up cannot go on; `str()` says why and what to do."""


def load(name: str) -> ModuleType:
    """A module of trio_sandbox.host by its path: importing the package needs what may not be installed yet."""
    spec = importlib.util.spec_from_file_location(f"bootstrap_{name}", ROOT / "trio_sandbox" / "host" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def digest(paths: Iterator[Path] | Sequence[Path]) -> str:
    """A checksum over names and contents."""
    found = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        found.update(f"{path.relative_to(ROOT)} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()


def wanted() -> dict[str, str]:
    """What the virtual environment was, or would be, made from."""
    compiled = [ROOT / "hatch_build.py", *sorted((ROOT / "guest").rglob("*"))]
    sources = [path for path in compiled if path.suffix in (".c", ".h", ".py") or path.name == "Makefile"]
    return {
        "place": str(ROOT),
        "dependencies": digest([ROOT / "pyproject.toml"]),
        "compiled": digest(path for path in sources if path.is_file()),
    }


def installed() -> dict[str, str]:
    """What the virtual environment was made from; {} when it was never finished."""
    try:
        stamp = json.loads(STAMP.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(stamp, dict) or not PYTHON.exists():
        return {}
    programs = [ROOT / "trio_sandbox" / "_bin" / f"{name}-{os.uname().machine}" for name in ("agent", "host")]
    return stamp if all(program.exists() for program in programs) else {**stamp, "compiled": "gone"}


def say(text: str) -> None:
    """Tell what is going on, at once even into a pipe."""
    print(f"[setup] {text}", flush=True)


def run(argv: Sequence[str | Path]) -> None:
    """Run a program to its end with its output shown. Raises Failed."""
    words = [str(word) for word in argv]
    status = load("packages").run_to_end(words, cwd=str(ROOT))
    if status:
        raise Failed(f"failed with {status}: {' '.join(words)}")


def works(python: Path) -> bool:
    """Whether this interpreter runs and is new enough."""
    code = "import sys; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([str(python), "-c", code], stderr=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        return False


def install(before: dict[str, str], after: dict[str, str]) -> None:
    """Make the virtual environment what `after` says, doing no more than differs from `before`."""
    STAMP.unlink(missing_ok=True)
    if not (before and works(PYTHON)):
        say("creating .venv")
        # Harmless over one that works, and it completes one whose making was interrupted.
        run([sys.executable, "-m", "venv", *(() if works(PYTHON) else ("--clear",)), VENV])
    pip: list[str | Path] = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet"]
    same = all(before.get(key) == after[key] for key in ("place", "dependencies"))
    say("compiling the guest agent again" if same else "installing Python packages into .venv (half a minute or so)")
    run([*pip, "--no-deps", "-e", "."] if same else [*pip, "-e", f".[{EXTRAS}]"])
    unfinished = STAMP.with_suffix(".new")
    unfinished.write_text(json.dumps(after))
    unfinished.replace(STAMP)


def timed(name: str, started: float) -> None:
    """Say how long a step took."""
    say(f"{name}: {time.monotonic() - started:.1f} s")


def bootstrap(*, only_venv: bool) -> None:
    """Everything that is missing, in order. Raises Failed."""
    before, after = installed(), wanted()
    stamp = load("stamp")
    if before == after and (only_venv or stamp.holds(stamp.home_folder())):
        return
    packages = load("packages")
    began = time.monotonic()
    needed = [need for need in packages.requirements() if need.build_only or not only_venv]
    if before:
        needed = [need for need in needed if not need.module]  # .venv is there
    try:
        if packages.ensure(needed, say=say):
            timed("system packages", began)
    except packages.PackagesError as error:
        raise Failed(str(error)) from error
    if before != after:
        began = time.monotonic()
        install(before, after)
        timed("Python packages", began)
    if not only_venv:
        run([VENV / "bin" / "trio-sandbox", "setup", "--yes"])


def install_for_tests() -> None:
    """The programs that only tests use. What cannot be had is told, and the tests that need it are skipped."""
    packages = load("packages")
    try:
        packages.ensure(packages.test_requirements(), say=say)
    except packages.PackagesError as error:
        say(f"some tests will be skipped: {error}")


def main() -> int:
    """Exit status: 0, 1 with a sentence on standard error, 130 when interrupted."""
    if sys.version_info < (3, 11):  # noqa: UP036  the one file that an older Python may start
        print("trio_sandbox needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3", file=sys.stderr)
        return 1
    try:
        bootstrap(only_venv="--venv" in sys.argv[1:])
        if "--tests" in sys.argv[1:]:
            install_for_tests()
    except Failed as error:
        print(f"[setup] {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("[setup] interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
