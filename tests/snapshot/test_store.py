"""Making, finding and removing snapshots, and what is left when it is cut short."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ended
from tests.snapshot.stopped import CHAIN, DISK_SIZE, PIECES, files_in, holds, stopped
from trio_sandbox.errors import (
    InvalidConfigError,
    SandboxNotFoundError,
    SandboxStillRunningError,
    SnapshotAlreadyExistsError,
    SnapshotError,
    SnapshotNotFoundError,
    UnsupportedError,
)
from trio_sandbox.home import Home
from trio_sandbox.image.cache.collect import pins
from trio_sandbox.lifecycle import State
from trio_sandbox.locks import held_if_free, name_key
from trio_sandbox.snapshot import store
from trio_sandbox.snapshot.create import create
from trio_sandbox.snapshot.description import DESCRIPTION_FILE, DISK_FILE
from trio_sandbox.state.owner import Owner
from trio_sandbox.state.places import disk_of, forget, store_of

WHOLE = ["first", f"first/{DESCRIPTION_FILE}", f"first/{DISK_FILE}"]


def test_what_is_made_is_found_and_whole(home: Home, one: str) -> None:
    made = create("first", one, home, labels={"stage": "built"})
    assert files_in(store.folder_of(home)) == WHOLE
    assert holds(made.path / DISK_FILE)
    made.verify()
    for name in ("first", str(made.path), made.description.digest, made.description.digest[:19]):
        assert store.find(home, name) == made
    assert made.description.virtual_bytes == DISK_SIZE
    assert made.disk_bytes < sum(map(len, PIECES.values())) + (1 << 20)
    assert made.description.source == one and made.description.image.chain_id == CHAIN
    assert (made.path / DISK_FILE).stat().st_mode & 0o777 == 0o600


def test_a_snapshot_outlives_its_sandbox_and_does_not_change_with_it(home: Home, one: str) -> None:
    made = create("first", one, home)
    with disk_of(home, one).open("r+b") as disk:
        disk.write(b"changed")
    made.verify()
    forget(home, one)
    store.find(home, "first").verify()
    assert pins(home) == {CHAIN: ["snapshot 'first'"]}


def test_list_is_by_age_and_by_labels(home: Home, one: str) -> None:
    for name, labels in (("b", {"n": "1"}), ("a", {"n": "1", "m": "2"}), ("c", {})):
        create(name, one, home, labels=labels)
    assert [found.name for found in store.all_snapshots(home)] == ["b", "a", "c"]
    assert [found.name for found in store.all_snapshots(home, {"n": "1"})] == ["b", "a"]
    assert [found.name for found in store.all_snapshots(home, {"n": "1", "m": "2"})] == ["a"]
    (store.folder_of(home) / "b" / DISK_FILE).unlink()  # damaged
    assert [found.name for found in store.all_snapshots(home)] == ["a", "c"]


def test_a_name_is_taken_unless_it_is_forced(home: Home, one: str) -> None:
    first = create("first", one, home)
    with pytest.raises(SnapshotAlreadyExistsError):
        create("first", one, home)
    second = create("first", one, home, force=True)
    assert second.description.created_ns > first.description.created_ns
    assert store.find(home, "first") == second
    assert files_in(store.folder_of(home)) == WHOLE


def test_what_is_refused_makes_nothing(home: Home, one: str) -> None:
    stopped(home, "disk", image="./disk.raw")
    stopped(home, "crashed", state=State.CRASHED)
    store_of(home).claim(one, Owner.current())
    for source, error in (
        ("nobody", SandboxNotFoundError),
        (one, SandboxStillRunningError),
        ("disk", UnsupportedError),
    ):
        with pytest.raises(error):
            create("first", source, home)
    with pytest.raises(InvalidConfigError) as caught:
        create("../first", one, home, labels={"a b": "c"})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["name", "labels"]
    with pytest.raises(InvalidConfigError, match="dest_dir"):
        create("first", one, home, folder=home.root / "missing")
    assert files_in(store.folder_of(home)) == []
    create("first", "crashed", home)


def test_a_sandbox_that_is_about_to_start_is_not_copied(home: Home, one: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_sandbox.snapshot.create.END_TIMEOUT", 0.0)
    with held_if_free(home, name_key(one)), pytest.raises(SandboxStillRunningError):
        create("first", one, home)


def test_in_another_folder_and_moved_again(home: Home, one: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine" / "precious").touch()
    with pytest.raises(SnapshotError, match="something that is no snapshot"):
        create("mine", one, home, folder=elsewhere, force=True)
    made = create("first", one, home, folder=elsewhere)
    assert files_in(elsewhere) == [*WHOLE, "mine", "mine/precious"]
    assert store.all_snapshots(home) == []
    with pytest.raises(SnapshotNotFoundError):
        store.find(home, "first")
    moved = made.path.rename(tmp_path / "moved")
    again = store.find(home, str(moved))
    again.verify()
    assert (again.name, again.description) == ("moved", made.description)
    assert store.remove(home, str(moved)) == moved and not moved.exists()


def test_remove(home: Home, one: str) -> None:
    made = create("first", one, home)
    with made.opened() as files:
        store.remove(home, "first")
        assert os.fstat(files[DISK_FILE]).st_size == DISK_SIZE  # whoever copies it now goes on
    assert files_in(store.folder_of(home)) == []
    for name in ("first", "./first", "sha256:" + "0" * 64):
        with pytest.raises(SnapshotNotFoundError):
            store.remove(home, name)
    with pytest.raises(InvalidConfigError):
        store.remove(home, "a/b")
    made = create("second", one, home)
    (made.path / DESCRIPTION_FILE).write_text("{}")
    with pytest.raises(SnapshotError, match="version"):  # somebody's own folder may have a file of that name
        store.remove(home, str(made.path))
    store.remove(home, "second")  # damaged, and known by name
    assert files_in(store.folder_of(home)) == []


def cut(folder: Path) -> None:
    os.truncate(folder / DISK_FILE, 5)


def swapped(folder: Path) -> None:
    (folder / DISK_FILE).unlink()
    (folder / DISK_FILE).symlink_to("/dev/zero")


def turned(folder: Path) -> None:
    """One bit of it."""
    with (folder / DISK_FILE).open("r+b") as file:
        file.seek(70_000)
        byte = file.read(1)[0]
        file.seek(70_000)
        file.write(bytes([byte ^ 1]))


def grown(folder: Path) -> None:
    """Data in a hole."""
    with (folder / DISK_FILE).open("r+b") as file:
        file.seek(DISK_SIZE // 2)
        file.write(b"x")


@pytest.mark.parametrize("damage", [cut, swapped, lambda folder: (folder / DISK_FILE).unlink()])
def test_damage_that_is_seen_when_it_is_looked_up(home: Home, one: str, damage: Callable[[Path], None]) -> None:
    made = create("first", one, home)
    damage(made.path)
    with pytest.raises(SnapshotError, match=DISK_FILE):
        store.find(home, "first")


@pytest.mark.parametrize("damage", [turned, grown])
def test_damage_that_is_seen_when_it_is_verified(home: Home, one: str, damage: Callable[[Path], None]) -> None:
    made = create("first", one, home)
    damage(made.path)
    with pytest.raises(SnapshotError, match="is damaged"):
        store.find(home, "first").verify()


def test_a_folder_of_a_stranger_is_not_waited_for(home: Home, one: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / DESCRIPTION_FILE)
    with pytest.raises(SnapshotError):
        store.find(home, str(tmp_path))
    made = create("first", one, home)
    plain = json.loads(made.description.to_bytes())
    plain["files"][DISK_FILE]["size"] = 0
    (made.path / DESCRIPTION_FILE).write_text(json.dumps(plain))
    (made.path / DISK_FILE).unlink()
    os.mkfifo(made.path / DISK_FILE)
    with pytest.raises(SnapshotError, match=DISK_FILE):
        store.find(home, "first")


class CalledOff(Exception):
    """Nobody wants it any more."""


def test_called_off_at_any_point_leaves_nothing_or_all_of_it(home: Home, one: str) -> None:
    calls = 0
    while True:
        left = calls

        def proceed() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise CalledOff

        try:
            create("first", one, home, proceed=proceed)
        except CalledOff:
            assert files_in(store.folder_of(home)) == []
            calls += 1
        else:
            break
    assert calls > 3
    assert files_in(store.folder_of(home)) == WHOLE


def killed_after(steps: int, work: Callable[[], object]) -> bool:
    """Do it in a process that is killed at one of its calls of the file system; whether it was."""
    child = os.fork()
    if child == 0:
        left = steps

        def counting(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **named)

            return call

        for name in ("rename", "fsync", "link", "mkdir", "unlink", "rmdir"):
            setattr(os, name, counting(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("replaces", [False, True])
def test_killed_at_any_step_leaves_no_half_snapshot(home: Home, one: str, replaces: bool) -> None:
    """Each time one call of the file system later, until it comes to its end."""
    old = create("first", one, home) if replaces else None
    folder = store.folder_of(home)
    for steps in range(100):
        was_killed = killed_after(steps, partial(create, "first", one, home, force=True))
        found = store.all_snapshots(home)
        if not was_killed:
            break
        for snapshot in found:
            snapshot.verify()
        create("other", one, home, force=True)  # cleans up
        assert not [name for name in os.listdir(folder) if name.startswith(".")]
        if replaces:
            (kept,) = [snapshot for snapshot in store.all_snapshots(home) if snapshot.name == "first"]
            kept.verify()
        elif (folder / "first").exists():
            store.remove(home, "first")
    assert steps > 5
    assert "first" in [snapshot.name for snapshot in found]
    assert old not in found


FULL = """
import sys
from pathlib import Path
from trio_sandbox.errors import StorageError
from trio_sandbox.home import Home
from trio_sandbox.snapshot.create import create

small = Path(sys.argv[2])
try:
    create("first", "one", Home(Path(sys.argv[1])), folder=small)
except StorageError as error:
    print(error.errno, error.path == str(small), list(small.iterdir()))
else:
    print("made")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize("size", ["64k", "204k"])
def test_a_full_disk(home: Home, one: str, tmp_path: Path, size: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    script = 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, size, str(small), sys.executable, "-c", FULL, str(home.root)]
    done = subprocess.run([*argv, str(small)], capture_output=True, text=True, check=False)
    assert done.stdout == "28 True []\n", done.stderr


def test_several_make_the_same_name_at_once(home: Home, one: str) -> None:
    """One wins, and the others are told; with force the last wins."""
    script = (
        "import sys; from pathlib import Path; from trio_sandbox.errors import SnapshotAlreadyExistsError\n"
        "from trio_sandbox.home import Home; from trio_sandbox.snapshot.create import create\n"
        "try: create('first', 'one', Home(Path(sys.argv[1])))\n"
        "except SnapshotAlreadyExistsError: print('taken')\n"
        "else: print('made')"
    )
    argv = [sys.executable, "-c", script, str(home.root)]
    started = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = []
    for process in started:
        with ended(process):
            assert process.stdout is not None
            said.append(process.stdout.read().strip())
    assert sorted(said) == ["made", "taken", "taken"]
    assert files_in(store.folder_of(home)) == WHOLE


def test_holes_cost_nothing(home: Home, one: str) -> None:
    """A gibibyte of them is not looked at: it has 16,384 pieces."""
    pieces: list[None] = []
    create("first", one, home, proceed=lambda: pieces.append(None)).verify(lambda: pieces.append(None))
    assert 0 < len(pieces) < 50
