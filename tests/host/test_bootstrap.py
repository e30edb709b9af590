"""The script behind `make`: on a fresh checkout, after a change, after an interrupt, and when nothing is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Checkout:
    """A small checkout in which every program that the script would run is only noted."""

    def __init__(self, script: ModuleType, root: Path) -> None:
        self.script = script
        self.root = root
        self.ran: list[list[str]] = []
        self.interrupt_at: str | None = None

    def run(self, argv: Sequence[str | Path]) -> None:
        words = [str(word) for word in argv]
        if self.interrupt_at is not None and self.interrupt_at in words:
            raise KeyboardInterrupt
        self.ran.append(words)
        if "pip" in words:
            (self.root / "trio_sandbox" / "_bin").mkdir(exist_ok=True)
            for name in ("agent", "host"):
                (self.root / "trio_sandbox" / "_bin" / f"{name}-{os.uname().machine}").touch()
        if "venv" in words:
            (self.root / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
            python = self.root / ".venv" / "bin" / "python"
            if not python.exists():
                python.symlink_to(sys.executable)

    def bootstrap(self, *, only_venv: bool = True) -> list[list[str]]:
        """Run the script and return the programs that it ran, without the interpreter's path."""
        self.ran = []
        self.script.bootstrap(only_venv=only_venv)
        return [words[1:] for words in self.ran]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", ROOT / "scripts" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    root = tmp_path / "checkout"
    (root / "guest").mkdir(parents=True)
    (root / "guest" / "agent.c").write_text("int main(void) { return 0; }\n")
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "hatch_build.py").write_text("\n")
    host = root / "trio_sandbox" / "host"
    host.mkdir(parents=True)
    for name in ("packages.py", "stamp.py"):
        shutil.copy(ROOT / "trio_sandbox" / "host" / name, host)
    for name, path in (
        ("ROOT", root),
        ("VENV", root / ".venv"),
        ("PYTHON", root / ".venv" / "bin" / "python"),
        ("STAMP", root / ".venv" / "bootstrap.json"),
    ):
        monkeypatch.setattr(script, name, path)
    made = Checkout(script, root)
    monkeypatch.setattr(script, "run", made.run)
    monkeypatch.setenv("TRIO_SANDBOX_HOME", str(tmp_path / "home"))
    return made


def names(ran: list[list[str]]) -> list[str]:
    return ["venv" if "venv" in words else "pip" if "pip" in words else words[0] for words in ran]


def test_a_fresh_checkout(checkout: Checkout) -> None:
    ran = checkout.bootstrap()
    assert names(ran) == ["venv", "pip"]
    assert ran[1][-2:] == ["-e", ".[test,check,docs]"]


def test_everything_ends_with_set_up(checkout: Checkout) -> None:
    assert checkout.bootstrap(only_venv=False)[-1] == ["setup", "--yes"]


def test_the_second_time_runs_nothing(checkout: Checkout) -> None:
    checkout.bootstrap()
    assert checkout.bootstrap() == []


def test_a_changed_guest_source_is_compiled_again_without_resolving(checkout: Checkout) -> None:
    checkout.bootstrap()
    (checkout.root / "guest" / "agent.c").write_text("int main(void) { return 1; }\n")
    ran = checkout.bootstrap()
    assert names(ran) == ["pip"]
    assert ran[0][-3:] == ["--no-deps", "-e", "."]


def test_programs_that_are_gone_are_compiled_again(checkout: Checkout) -> None:
    checkout.bootstrap()
    (checkout.root / "trio_sandbox" / "_bin" / f"agent-{os.uname().machine}").unlink()
    assert checkout.bootstrap()[0][-3:] == ["--no-deps", "-e", "."]


@pytest.mark.parametrize("name", ["pyproject.toml", "hatch_build.py"])
def test_a_changed_project_is_installed_again(name: str, checkout: Checkout) -> None:
    checkout.bootstrap()
    (checkout.root / name).write_text("# changed\n")
    assert names(checkout.bootstrap()) == ["pip"]


def test_a_built_file_is_no_source(checkout: Checkout) -> None:
    checkout.bootstrap()
    (checkout.root / "guest" / "agent").write_bytes(b"\x7fELF")
    assert checkout.bootstrap() == []


@pytest.mark.parametrize("program", ["venv", "pip"])
def test_an_interrupt_is_made_good_by_the_next_run(program: str, checkout: Checkout) -> None:
    checkout.interrupt_at = program
    with pytest.raises(KeyboardInterrupt):
        checkout.bootstrap()
    checkout.interrupt_at = None
    assert "pip" in names(checkout.bootstrap())
    assert checkout.bootstrap() == []


def test_a_moved_checkout_is_installed_again(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout.bootstrap()
    stamp = checkout.root / ".venv" / "bootstrap.json"
    stamp.write_text(stamp.read_text().replace(str(checkout.root), "/elsewhere"))
    assert names(checkout.bootstrap()) == ["pip"]


def test_an_environment_that_broke_is_made_anew(checkout: Checkout) -> None:
    checkout.bootstrap()
    python = checkout.root / ".venv" / "bin" / "python"
    python.unlink()
    ran = checkout.bootstrap()
    assert names(ran) == ["venv", "pip"]
    assert "--clear" in ran[0]


def test_packages_that_cannot_be_installed_end_it(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout.script, "load", lambda name: _Loaded(name))
    with pytest.raises(checkout.script.Failed, match="no apt-get"):
        checkout.bootstrap()
    assert checkout.ran == []


class _Loaded:
    """Plays the modules that the script loads: nothing is ready, and no package can be installed."""

    PackagesError = RuntimeError

    def __init__(self, name: str) -> None:
        self.name = name

    def requirements(self) -> tuple[object, ...]:
        return ()

    def ensure(self, needed: object, *, say: object) -> None:
        raise RuntimeError("there is no apt-get here")


def test_the_script_needs_no_installed_package() -> None:
    """It runs under an interpreter without site-packages."""
    done = subprocess.run(
        [sys.executable, "-IS", "-c", f"import runpy; runpy.run_path({str(ROOT / 'scripts' / 'bootstrap.py')!r})"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
