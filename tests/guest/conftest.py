"""The guest agent, built for this host with the sanitizers, and driven over a socket pair."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pytest

from tests.guest.agent_client import Client
from tests.guest.event_programs import Events, events_of
from tests.guest.running import running_agent

GUEST = Path(__file__).parents[2] / "guest"


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sanitized `agent`, `host`, `frames_check` and `warm_check`."""
    compiler = next((name for name in ("gcc", "clang", "cc") if shutil.which(name)), None)
    assert compiler, "the tests of the agent need a C compiler"
    folder = tmp_path_factory.mktemp("guest")
    command = ["make", "-s", "-C", str(GUEST), f"BUILD={folder}", f"SANITIZED_CC={compiler}", "sanitized"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder / "sanitized"


class Launch(Protocol):
    """Starts an agent that has not been spoken to."""

    def __call__(self, *, may_fail: bool = False) -> AbstractContextManager[Client]: ...


@pytest.fixture
def launch(programs: Path, tmp_path: Path) -> Launch:
    def start(*, may_fail: bool = False) -> AbstractContextManager[Client]:
        return running_agent(programs / "agent", tmp_path / "agent.log", may_fail)

    return start


@pytest.fixture
def agent(launch: Launch) -> Iterator[Client]:
    """An agent that is configured."""
    with launch() as client:
        client.configure()
        yield client


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter and write in."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o777)
        yield Path(name)


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """A folder for very many files, in memory where there is such a place."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with room for a mebibyte."""
    if os.getuid() != 0:
        pytest.skip("needs to mount")
    disk = tmp_path / "mounts" / "disk"
    disk.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs to mount")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def events(programs: Path, tmp_path: Path) -> Iterator[Events]:
    """An agent, and the programs that speak to its socket of events."""
    with events_of(programs, tmp_path) as events:
        yield events
