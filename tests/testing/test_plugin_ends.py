"""A run of pytest that is interrupted or killed, at whatever moment: nothing of its sandboxes stays."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.processes import ended
from tests.real.conftest import first_use, own_temporary_folder
from tests.testing.pytest_runs import command, environment, write
from tests.testing.test_plugin import names, nothing_left

__all__ = ["first_use", "nothing_left", "own_temporary_folder"]

pytestmark = [pytest.mark.vm, pytest.mark.usefixtures("nothing_left")]
STARTED = """
    import pathlib
    import anyio
    import pytest

    FOLDER = pathlib.Path(__file__).parent

    @pytest.fixture
    def anyio_backend():
        return BACKEND

    @MARK
    async def test_endless(sandbox, sandbox_factory):
        await sandbox_factory()
        (FOLDER / "started").touch()
        await sandbox.shell("sleep 1000")
"""
KINDS = {
    "pytest-trio": ('"trio"', "pytest.mark.trio"),
    "anyio-trio": ('"trio"', "pytest.mark.anyio"),
    "anyio-asyncio": ('"asyncio"', "pytest.mark.anyio"),
}
START_TIMEOUT = 120.0
END_TIMEOUT = 30.0


def started(folder: Path, kind: str, *arguments: str) -> subprocess.Popen[str]:
    backend, mark = KINDS[kind]
    write(folder, test_endless=STARTED.replace("BACKEND", backend).replace("MARK", mark))
    return subprocess.Popen(
        command(folder, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=environment(),
        process_group=0,  # as a terminal has it: Ctrl-C is for all of them
    )


def wait_until(what: object, process: subprocess.Popen[str]) -> None:
    assert callable(what)
    deadline = time.monotonic() + START_TIMEOUT
    while not what():
        assert process.poll() is None and time.monotonic() < deadline, process.stdout and process.stdout.read()
        time.sleep(0.002)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_ends_its_sandboxes_before_it_ends(tmp_path: Path, kind: str) -> None:
    known = names()
    with ended(started(tmp_path, kind)) as process:
        wait_until((tmp_path / "started").exists, process)
        assert len(names() - known) == 2
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=END_TIMEOUT)
        assert process.returncode, text
        assert "KeyboardInterrupt" in text
        assert names() == known  # already: it waited for them


def test_interrupted_workers_leave_nothing(tmp_path: Path) -> None:
    with ended(started(tmp_path, "anyio-trio", "-n", "1")) as process:
        wait_until((tmp_path / "started").exists, process)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=END_TIMEOUT)
    gone(set())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_one_that_ends_while_a_sandbox_is_made_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    known = names()
    with ended(started(tmp_path, "anyio-asyncio")) as process:
        wait_until(lambda: any("endless" in name for name in names() - known), process)  # its row is written first
        process.send_signal(number)
        process.communicate(timeout=END_TIMEOUT)
    gone(known)


def test_a_killed_run_leaves_nothing(tmp_path: Path) -> None:
    known = names()
    with ended(started(tmp_path, "pytest-trio")) as process:
        wait_until((tmp_path / "started").exists, process)
        process.kill()
        process.communicate(timeout=END_TIMEOUT)
    gone(known)


def gone(known: set[str]) -> None:
    """Wait until the sandboxes are gone: nobody is left to wait for them."""
    deadline = time.monotonic() + END_TIMEOUT
    while names() - known:
        assert time.monotonic() < deadline
        time.sleep(0.02)
