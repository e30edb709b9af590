"""The programs in the package: where they are looked for, and how the build hook makes them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import trio_sandbox.binaries
from tests.guest.conftest import GUEST
from trio_sandbox.binaries import agent_path, host_program_path, program
from trio_sandbox.errors import HostNotReadyError


def test_a_missing_program_is_named_with_a_remedy() -> None:
    with pytest.raises(HostNotReadyError) as caught:
        program("no-such")
    assert "no-such" in caught.value.problem
    assert "pip install" in caught.value.remedy


def test_programs_are_found_beside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio_sandbox.binaries, "files", lambda package: tmp_path)
    (tmp_path / "_bin").mkdir()
    for name, find in (("agent", agent_path), ("host", host_program_path)):
        path = tmp_path / "_bin" / f"{name}-{os.uname().machine}"
        path.touch(mode=0o644)
        with pytest.raises(HostNotReadyError):
            find()
        path.chmod(0o755)
        assert find() == path


def hook() -> ModuleType:
    """hatch_build.py, which is not part of the package."""
    spec = importlib.util.spec_from_file_location("hatch_build", GUEST.parent / "hatch_build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("TRIO_SANDBOX_CC", raising=False)


def test_hook_builds_static_programs(tmp_path: Path) -> None:
    hatch_build = hook()
    programs = hatch_build.build_programs(GUEST.parent, tmp_path, "1.2.3")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in programs)
    agent, host = programs
    assert b"1.2.3" in agent.read_bytes()
    for path in programs:
        assert os.access(path, os.X_OK)
        assert b"/lib64/ld-" not in path.read_bytes()
        assert b"/lib/ld-" not in path.read_bytes()
    assert subprocess.run([host, "tsc-khz"], capture_output=True, check=True).stdout.strip().isdigit()


def test_hook_asks_for_zig_only_without_a_compiler(no_compiler: None) -> None:
    hatch_build = hook()
    assert hatch_build.ProgramsHook.dependencies(None) == ["ziglang>=0.13"]


def test_hook_says_what_the_compiler_said(tmp_path: Path) -> None:
    hatch_build = hook()
    (tmp_path / "guest" / "host").mkdir(parents=True)
    (tmp_path / "guest" / "main.c").write_text("this is not C\n")
    with pytest.raises(RuntimeError, match=r"main\.c"):
        hatch_build.build_programs(tmp_path, tmp_path / "out", "1")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.skipif(shutil.which("musl-gcc") is None, reason="musl-gcc is not installed")
def test_release_build_by_make(tmp_path: Path) -> None:
    done = subprocess.run(["make", "-s", "-C", str(GUEST), f"BUILD={tmp_path}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    agent = tmp_path / "release" / "agent"
    assert agent.stat().st_size < 200_000
    usage = subprocess.run([agent], capture_output=True, text=True)
    assert usage.returncode == 2
    assert "PID 1" in usage.stderr
