"""Removal: whole, or finished by whoever comes next."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trio_sandbox.errors import SandboxNotFoundError, SandboxStillRunningError
from trio_sandbox.home import Home
from trio_sandbox.lifecycle import End, EndReason, State
from trio_sandbox.state.owner import Owner
from trio_sandbox.state.places import disk_of, folder_of, forget, note_kill, socket_of, store_of
from trio_sandbox.state.rows import SandboxRow


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def stopped(home: Home, name: str) -> SandboxRow:
    """A sandbox that has run, with what it keeps."""
    now = time.time_ns()
    store = store_of(home)
    store.add(SandboxRow(name, "{}", State.CREATING, now, now, owner=Owner.current()))
    store.begin_run(name)
    folder_of(home, name).mkdir()
    disk_of(home, name).touch()
    socket_of(home, name).touch()
    store.end_run(name, End(EndReason.REQUESTED, 0))
    return store.get(name)


def test_removal(home: Home) -> None:
    stopped(home, "worker")
    assert not socket_of(home, "worker").exists()
    forget(home, "worker")
    assert not folder_of(home, "worker").exists()
    with pytest.raises(SandboxNotFoundError):
        forget(home, "worker")
    forget(home, "worker", missing_ok=True)


KILLED_WHILE_REMOVING = """
import os, signal, sys
from pathlib import Path
from trio_sandbox.home import Home
from trio_sandbox.state import places

def half(home, name, forgotten=True):
    places.disk_of(home, name).unlink()
    os.kill(os.getpid(), signal.SIGKILL)

places.remove_traces = half
places.forget(Home(Path(sys.argv[1])), "worker")
"""


def test_a_removal_that_was_killed_in_the_middle_is_finished(home: Home) -> None:
    stopped(home, "worker")
    subprocess.run([sys.executable, "-c", KILLED_WHILE_REMOVING, os.fspath(home.root)], check=False)
    assert folder_of(home, "worker").exists()
    assert store_of(home).all() == []
    assert not folder_of(home, "worker").exists()


def test_one_that_was_started_or_made_again_is_not_what_was_meant(home: Home) -> None:
    row = stopped(home, "worker")
    (run,) = store_of(home).runs("worker")
    meant = (row.created_ns, run.number)
    store_of(home).begin_run("worker")
    store_of(home).end_run("worker", End(EndReason.REQUESTED, 0))
    forget(home, "worker", identity=meant)
    forget(home, "worker", identity=(0, run.number + 1))
    assert folder_of(home, "worker").exists()
    forget(home, "worker", identity=(row.created_ns, run.number + 1))
    assert not folder_of(home, "worker").exists()


def test_one_that_runs_is_not_removed(home: Home) -> None:
    stopped(home, "worker")
    store_of(home).claim("worker", Owner.current())
    store_of(home).begin_run("worker")
    with pytest.raises(SandboxStillRunningError):
        forget(home, "worker")


def test_a_kill_is_written_down_and_an_ephemeral_one_is_gone_with_it(home: Home) -> None:
    for name, ephemeral in (("stays", False), ("goes", True)):
        stopped(home, name)
        store_of(home).claim(name, Owner.current(), ephemeral=ephemeral)
        store_of(home).begin_run(name)
        note_kill(home, name)
    (row,) = store_of(home).all()
    assert (row.name, row.state) == ("stays", State.STOPPED)
    assert store_of(home).runs("stays")[-1].reason == "killed"
    assert not folder_of(home, "goes").exists()
    assert row.owner is None


def test_a_kill_that_came_late_changes_nothing(home: Home) -> None:
    stopped(home, "worker")
    store_of(home).claim("worker", Owner.current())
    store_of(home).begin_run("worker")
    store_of(home).end_run("worker", End(EndReason.KERNEL_PANIC, 1))
    note_kill(home, "worker")
    assert store_of(home).get("worker").state is State.CRASHED
