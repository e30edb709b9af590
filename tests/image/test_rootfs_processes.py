"""Builds in several processes: one builds, a killed one leaves nothing, and a full disk is told."""

from __future__ import annotations

import gzip
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.conftest import PACKER, RANDOM, left_in
from tests.image.images import Item, archive_bytes, layer_tar, layout_files, make_image
from trio_sandbox.home import Home

pytestmark = pytest.mark.skipif(PACKER is None, reason="tar2sqfs is not installed")

CHILD = """
import sys, trio
from pathlib import Path
from typing import Any
from trio_sandbox.home import Home
from trio_sandbox.image.rootfs import prepare_rootfs

def progress(stage, done, total):
    print("progress", stage, flush=True)

async def main():
    print("started", flush=True)
    root = await prepare_rootfs(sys.argv[1], Home(Path(sys.argv[2])), progress=progress)
    print("done", root.path, flush=True)

trio.run(main)
"""


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for child in started:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def start(children: list[subprocess.Popen[str]], layout: Path, home: Home) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", CHILD, str(layout), str(home.root)]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
    children.append(child)
    return child


def wait_for(child: subprocess.Popen[str], word: str) -> str:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(word):
            return line
    raise AssertionError(f"the child ended without {word!r}")


def test_two_processes_build_once(
    home: Home, layout: Path, packings: Path, children: list[subprocess.Popen[str]]
) -> None:
    two = [start(children, layout, home) for _ in range(2)]
    assert wait_for(two[0], "done") == wait_for(two[1], "done")
    assert len(packings.read_text().splitlines()) == 1


@pytest.mark.parametrize("stage", ["started", "progress reading", "progress writing"])
def test_a_build_that_is_killed_leaves_nothing(
    home: Home, big_layout: Path, packings: Path, children: list[subprocess.Popen[str]], stage: str
) -> None:
    child = start(children, big_layout, home)
    wait_for(child, stage)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert left_in(home) == []
    for pid in packings.read_text().split():  # the packer sees the end of its input, and goes by itself
        try:
            pidfd = os.pidfd_open(int(pid))
        except ProcessLookupError:
            continue
        assert select.select([pidfd], [], [], 10)[0]
        os.close(pidfd)
    assert left_in(home) == []
    again = start(children, big_layout, home)  # and no lock is held
    wait_for(again, "done")


FULL = """
import sys, trio
from pathlib import Path
from typing import Any
from trio_sandbox.errors import StorageError
from trio_sandbox.home import Home
from trio_sandbox.image.rootfs import prepare_rootfs

home = Home(Path(sys.argv[1]))
for image in sys.argv[2:]:
    try:
        trio.run(prepare_rootfs, image, home)
    except StorageError as error:
        print(type(error).__name__, error.errno, sorted(p.name for p in home.root.rglob("*") if p.is_file()))
"""


@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0,
    reason="mounting a small file system needs root",
)
@pytest.mark.parametrize("size", ["64k", "1m", "4m"])
def test_a_full_disk(tmp_path: Path, big_layout: Path, size: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    archive = tmp_path / "image.tar.gz"
    archive.write_bytes(gzip.compress(archive_bytes(layout_files(make_image([layer_tar([Item("r", RANDOM)])])))))
    script = 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, size, str(small), sys.executable, "-c", FULL, str(small)]
    done = subprocess.run(
        [*argv, str(big_layout), str(archive)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert done.stdout.splitlines() == ["StorageError 28 ['locks']", "StorageError 28 ['locks']"], done.stderr
