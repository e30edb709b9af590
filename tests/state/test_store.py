"""The store of sandboxes: rows, runs, owners that die, and many processes at once."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from trio_sandbox.errors import SandboxAlreadyExistsError, SandboxNotFoundError, StorageError
from trio_sandbox.home import Home
from trio_sandbox.lifecycle import End, EndReason, State
from trio_sandbox.state.owner import Owner
from trio_sandbox.state.rows import SandboxRow
from trio_sandbox.state.store import MIGRATIONS, RUNS_KEPT, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.of(Home(tmp_path / "home"))


def row(name: str = "worker", **fields: object) -> SandboxRow:
    now = time.time_ns()
    base = SandboxRow(name, "{}", State.CREATING, now, now, owner=Owner.current())
    return attrs.evolve(base, **fields)  # type: ignore[arg-type]


def dead_owner() -> Owner:
    """A process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner.of(process.pid)
    assert owner is not None
    assert owner.is_alive
    process.communicate(b"\n")
    return owner


def test_what_is_added_is_found_again(store: Store) -> None:
    added = row(labels={"team": "red", "b": "2"}, detached=True, chain_id="abc", socket="/run/x.sock")
    store.add(added)
    assert store.get("worker") == added
    assert store.all() == [added]


def test_a_name_is_used_once(store: Store) -> None:
    store.add(row())
    with pytest.raises(SandboxAlreadyExistsError):
        store.add(row())
    store.remove("worker")
    store.add(row())


def test_what_is_not_there_is_not_found(store: Store) -> None:
    for call in (store.get, store.remove):
        with pytest.raises(SandboxNotFoundError):
            call("nobody")
    with pytest.raises(SandboxNotFoundError):
        store.update("nobody", state=State.RUNNING)


def test_labels_choose(store: Store) -> None:
    store.add(row("a", labels={"x": "1", "y": "1"}))
    store.add(row("b", labels={"x": "1"}))
    store.add(row("c"))
    assert [found.name for found in store.all({"x": "1"})] == ["a", "b"]
    assert [found.name for found in store.all({"x": "1", "y": "1"})] == ["a"]
    assert store.all({"x": "2"}) == []


def test_labels_that_are_added_count_less_than_those_that_are_there(store: Store) -> None:
    store.add(row("a", labels={"x": "own"}))
    store.begin_run("a", {"x": "image", "y": "image"}, chain_id="sha256:1", socket="/there")
    found = store.get("a")
    assert (found.labels, found.chain_id, found.socket) == ({"x": "own", "y": "image"}, "sha256:1", "/there")
    with pytest.raises(SandboxNotFoundError):
        store.begin_run("nobody", {"x": "1"})
    assert [found.name for found in store.all({"y": "image"})] == ["a"]


def test_runs_tell_how_each_one_ended(store: Store) -> None:
    store.add(row())
    store.begin_run("worker")
    assert store.get("worker").state is State.RUNNING
    store.end_run("worker", End(EndReason.KERNEL_PANIC, 1, "Kernel panic"))
    found = store.get("worker")
    assert found.state is State.CRASHED and found.owner is None
    store.claim("worker", Owner.current())
    store.begin_run("worker")
    store.end_run("worker", End(EndReason.REQUESTED, 0))
    first, second = store.runs("worker")
    assert (first.reason, first.exit_code, first.console_tail) == ("kernel-panic", 1, "Kernel panic")
    assert (second.reason, second.state) == ("requested", "stopped")
    assert first.started_ns <= first.ended_ns <= second.started_ns


def test_old_runs_are_forgotten(store: Store) -> None:
    store.add(row())
    for number in range(RUNS_KEPT + 5):
        store.begin_run("worker")
        store.end_run("worker", End(EndReason.REQUESTED, number))
    runs = store.runs("worker")
    assert len(runs) == RUNS_KEPT
    assert runs[-1].exit_code == RUNS_KEPT + 4


def test_a_sandbox_that_runs_cannot_be_claimed(store: Store) -> None:
    store.add(row())
    with pytest.raises(ValueError, match="creating"):
        store.claim("worker", Owner.current())


def test_a_row_whose_owner_died_is_put_right_on_sight(store: Store) -> None:
    looks: list[Callable[[], SandboxRow]] = [lambda: store.get("worker"), lambda: store.all()[0]]
    for look in looks:
        store.add(row())
        store.begin_run("worker")
        store.update("worker", owner=dead_owner())
        found = look()
        assert found.state is State.CRASHED
        assert found.owner is None
        assert store.runs("worker")[0].reason == "vmm-exited"
        store.remove("worker")


def test_one_that_never_ran_and_one_that_was_ephemeral_go_with_their_owner(tmp_path: Path) -> None:
    tidied: list[tuple[str, bool]] = []
    store = Store.of(Home(tmp_path / "home"), lambda *seen: tidied.append(seen))
    owner = dead_owner()
    store.add(row("half-made", owner=owner))
    store.add(row("ephemeral", owner=owner, ephemeral=True, state=State.RUNNING))
    store.add(row("alive"))
    assert [found.name for found in store.all()] == ["alive"]
    assert sorted(tidied) == [("ephemeral", True), ("half-made", True)]


def test_a_start_whose_owner_died_leaves_what_there_was(tmp_path: Path) -> None:
    tidied: list[tuple[str, bool]] = []
    store = Store.of(Home(tmp_path / "home"), lambda *seen: tidied.append(seen))
    for name, reason in (("ended", EndReason.REQUESTED), ("broken", EndReason.KERNEL_PANIC)):
        store.add(row(name))
        store.begin_run(name)
        store.end_run(name, End(reason, 0))
        tidied.clear()
        store.claim(name, dead_owner())
    assert {found.name: found.state for found in store.all()} == {"ended": State.STOPPED, "broken": State.CRASHED}
    assert sorted(tidied) == [("broken", False), ("ended", False)]
    assert [run.reason for run in store.runs("ended")] == ["requested"]


def test_the_number_of_a_process_that_ended_is_no_owner(store: Store) -> None:
    mine = Owner.current()
    store.add(row("reused", owner=attrs.evolve(mine, start_ticks=mine.start_ticks - 1)))
    store.add(row("rebooted", owner=attrs.evolve(mine, boot_id="another boot")))
    assert sorted(store.reconcile()) == ["rebooted", "reused"]
    assert store.all() == []
    assert store.reconcile() == []


def test_readers_wait_for_no_writer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was stopped in the middle of a change can be looked up, and so be killed."""
    monkeypatch.setattr("trio_sandbox.state.store.BUSY_TIMEOUT", 0.01)
    store.add(row(state=State.RUNNING, owner=Owner.current()))
    store.begin_run("worker")
    with closing(sqlite3.connect(store.path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert store.get("worker").is_live
        assert [one.name for one in store.all()] == ["worker"]
        assert len(store.runs("worker")) == 1
        with pytest.raises(StorageError, match="locked"):
            store.update("worker", socket="elsewhere")


def test_a_zombie_is_no_owner() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        assert Owner.of(pid) is None
    finally:
        os.waitpid(pid, 0)


def test_tables_of_a_newer_version_are_left_alone(store: Store) -> None:
    store.add(row())
    with sqlite3.connect(store.path) as database:
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(StorageError, match="newer version"):
        store.all()


def test_a_database_that_is_no_database(store: Store) -> None:
    store.path.write_bytes(b"x" * 5000)
    with pytest.raises(StorageError):
        store.all()


CHURN = """
import sys, time
from trio_sandbox.home import Home
from trio_sandbox.state.owner import Owner
from trio_sandbox.state.rows import SandboxRow
from trio_sandbox.state.store import Store
from trio_sandbox.lifecycle import End, EndReason, State
from contextlib import closing
from pathlib import Path

store, mine, until = Store.of(Home(Path(sys.argv[1]))), sys.argv[2], time.monotonic() + float(sys.argv[3])
turns = 0
while time.monotonic() < until:
    name = f"{mine}-{turns}"
    store.add(SandboxRow(name, "{}", State.CREATING, time.time_ns(), time.time_ns(), owner=Owner.current()))
    store.begin_run(name)
    assert name in [row.name for row in store.all()], name
    store.end_run(name, End(EndReason.REQUESTED, 0))
    assert store.get(name).state is State.STOPPED
    if turns % 2:
        store.remove(name)
    turns += 1
print(turns)
"""


def churn(home: Path, seconds: float) -> None:
    """Eight processes that create, list and remove for so long: each finds all that is its own."""
    processes = [
        subprocess.Popen([sys.executable, "-c", CHURN, home, f"p{n}", str(seconds)], stdout=subprocess.PIPE, text=True)
        for n in range(8)
    ]
    turns = [int(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert min(turns) > 0
    left = [row.name for row in Store.of(Home(home)).all()]
    assert sorted(left) == sorted(f"p{n}-{turn}" for n, count in enumerate(turns) for turn in range(0, count, 2))


def test_eight_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    churn(tmp_path / "home", 3)


@pytest.mark.soak
def test_eight_processes_for_a_minute(tmp_path: Path) -> None:
    churn(tmp_path / "home", 60)
