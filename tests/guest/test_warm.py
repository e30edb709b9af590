"""What a template reads beforehand, and what it leaves alone however an image is made."""

from __future__ import annotations

import os
import subprocess
from glob import glob
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.guest.running import SANITIZERS

MIB = 1 << 20


class Warm:
    """Runs the agent's code on a folder as if that were its root."""

    def __init__(self, programs: Path, root: Path) -> None:
        self.program, self.root = programs / "warm_check", root

    def __call__(self, *patterns: str, root: str | None = None) -> tuple[int, int]:
        """How many files were read, and how many bytes."""
        command = [str(self.program), root or str(self.root), *patterns]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **SANITIZERS})
        assert (done.returncode, done.stderr) == (0, "")
        files, size = map(int, done.stdout.split())
        return files, size

    def file(self, path: str, size: int = 1) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as file:
            file.truncate(size)


@pytest.fixture
def warm(programs: Path, tmp_path: Path) -> Warm:
    root = tmp_path / "root"
    root.mkdir()
    return Warm(programs, root)


def test_names_and_patterns(warm: Warm) -> None:
    for number, path in enumerate(
        ["bin/sh", "lib/a.so", "lib/b.so", "lib/.hidden.so", "lib/x/deep/c.so", "lib/y/deep/d"]
    ):
        warm.file(path, 10**number)
    assert warm("/bin/sh") == (1, 1)
    assert warm("/lib/*.so") == (2, 110)
    assert warm("/lib/[!a].so", "/lib/?.so") == (2, 110)
    assert warm("/lib/.h*") == (1, 1_000)
    assert warm("/*/*/deep/*", "//bin///s?/") == (3, 110_001)
    assert warm("/lib/*/../a.so") == (1, 10)
    assert warm("/nothing", "/bin/nothing", "/bin/sh/x", "/x*/y", "/", "/..", "/*") == (0, 0)
    assert warm() == (0, 0)


def test_a_file_is_read_once_and_whole(warm: Warm) -> None:
    warm.file("python3.11", 3 * MIB + 7)
    (warm.root / "python3").symlink_to("python3.11")
    (warm.root / "again").hardlink_to(warm.root / "python3.11")
    assert warm("/python3", "/py*", "/again", "/python3") == (1, 3 * MIB + 7)


def test_links_lead_within_the_root(warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    warm.file("usr/bin/sh", 5)
    links = {"bin": "/usr/bin", "out": "../outside", "far": str(tmp_path / "outside"), "loop": "loop", "self": "/"}
    for name, target in links.items():
        (warm.root / name).symlink_to(target)
    assert warm("/bin/sh") == (1, 5)
    assert warm("/bin/*", "/self/self/b*/sh", "/*/*/*/*/*") == (1, 5)
    assert warm("/out", "/far", "/loop", "/loop/*", "/../outside", "/self/../../outside") == (0, 0)


def test_other_things_than_files_are_not_opened(warm: Warm) -> None:
    os.mkfifo(warm.root / "fifo")  # opening it would wait for a writer
    (warm.root / "folder").mkdir()
    (warm.root / "null").symlink_to("/dev/null")
    assert warm("/*", "/fifo", "/folder") == (0, 0)


def test_other_mounts_are_left_alone(warm: Warm) -> None:
    # The kernel's files look regular, and some have effects: boot_id is made by its first reader.
    assert warm("/proc/*", "/proc/sys/kernel/random/*", "/proc/self/exe", "/sys/kernel/*", root="/") == (0, 0)


def test_bytes_are_bounded(warm: Warm) -> None:
    warm.file("a", 200 * MIB)
    warm.file("b", 1)
    files, size = warm("/a", "/b")
    assert files == 1
    assert 0 < size <= 96 * MIB


def test_matches_are_bounded(warm: Warm) -> None:
    for number in range(4_200):
        warm.file(f"many/{number}")
    warm.file("last")
    assert warm("/many/*", "/last") == (4_096, 4_096)


def test_entries_are_bounded(warm: Warm) -> None:
    (warm.root / "many").mkdir()
    for number in range(1 << 16):
        os.close(os.open(warm.root / "many" / str(number), os.O_CREAT | os.O_WRONLY))
    warm.file("one/last")
    assert warm("/one/*") == (1, 1)
    assert warm("/many/no*", "/one/l*") == (0, 0)
    assert warm("/many/no*", "/one/last") == (1, 1)


PARTS = st.sampled_from(["*", "?", "a", "b*", "[ab]", "*.c", ".*", "a?", "[!a]", "*a*", "link", ".."])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True)
@given(parts=st.lists(PARTS, min_size=1, max_size=5))
@example(parts=["*"] * 128)
def test_patterns_mean_what_they_mean_elsewhere(warm: Warm, parts: list[str]) -> None:
    if not any(warm.root.iterdir()):
        for path in ("a", "b/a", "b/b.c", "b/.c", "ab/a/a", "ab/.a/b", "ab/b/ba.c", "aa/aa/aa/aa"):
            warm.file(path, 1)
        (warm.root / "link").symlink_to("ab")
    pattern = "/" + "/".join(parts)
    # A root has no parent: there Python, which knows of no root, would leave the folder.
    depth = 0
    for part in parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return
    found = {
        os.stat(warm.root / path).st_ino
        for path in glob(pattern[1:], root_dir=warm.root)
        if (warm.root / path).is_file()
    }
    assert warm(pattern) == (len(found), len(found))
