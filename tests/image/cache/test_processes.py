"""Several processes at one cache: what they download, what one leaves that is killed, what a full disk leaves."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.image.cache.remotes import found
from tests.image.images import Item, TestImage, layer_tar, make_image
from trio_sandbox.home import Home
from trio_sandbox.image.cache.blobs import BlobCache

ROOT = Path(__file__).parents[3]
PULLER = [sys.executable, "-m", "tests.image.cache.puller"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
LAYERS = [layer_tar([Item(f"file-{number}", random.Random(number).randbytes(100_000))]) for number in range(3)]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(pickle.dumps(make_image(LAYERS)))
    return path


def start(task: str, home: Home, *words: object) -> subprocess.Popen[str]:
    argv = [*PULLER, task, str(home.root), *map(str, words)]
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def served(processes: list[subprocess.Popen[str]]) -> dict[str, int]:
    """Bytes by blob, of all processes together."""
    total: dict[str, int] = {}
    for process in processes:
        out, _ = process.communicate()
        assert process.returncode == 0
        for digest, size in json.loads(out).items():
            total[digest] = total.get(digest, 0) + size
    return total


def sizes(image: TestImage) -> dict[str, int]:
    return {layer.digest: layer.size for layer in found(image).layers}


def test_several_processes_download_an_image_once(home: Home, image: Path) -> None:
    processes = [start("pull", home, image, 10_000, 0.01) for _ in range(4)]
    assert served(processes) == sizes(make_image(LAYERS))


def test_whoever_is_killed_is_relieved(home: Home, image: Path) -> None:
    """At several byte counts, one after the other; what had come is not fetched again."""
    chance = random.Random(5)
    whole = sizes(make_image(LAYERS))
    before = 0
    for _ in range(3):
        process = start("pull", home, image, 1000, 0, chance.randrange(1000, 50_000))
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        blobs = BlobCache(home)
        here = sum(path.stat().st_size for path in [*blobs.parts.iterdir(), *map(blobs.path, whole)] if path.exists())
        assert here > before
        before = here
    rest = served([start("pull", home, image, 10_000, 0) for _ in range(2)])
    assert sum(rest.values()) == sum(whole.values()) - before


@pytest.mark.parametrize("seed", [1, 2])
def test_a_cache_that_anybody_left_in_the_middle_is_of_use(home: Home, seed: int) -> None:
    process = start("crash", home, seed, 12)
    out, _ = process.communicate()
    assert process.returncode == 0
    told = json.loads(out)
    assert told["lines"] > 500
    assert told["killed"] == 12


FULL = """
import sys, pickle, trio
from pathlib import Path
from tests.image.cache.remotes import Registry, obtain
from trio_sandbox.errors import StorageError
from trio_sandbox.home import Home
home, image = Home(Path(sys.argv[1])), pickle.load(open(sys.argv[2], "rb"))
try:
    trio.run(obtain, home, Registry(image, 4096))
except StorageError as error:
    print("StorageError", error.errno)
"""


@pytest.mark.parametrize("size", ["200k", "400k"])
def test_a_full_disk(tmp_path: Path, image: Path, size: str) -> None:
    """Full while layers are downloaded, and while the root file system is written."""
    small = tmp_path / "small"
    small.mkdir()
    script = 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"'
    argv = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        size,
        str(small),
        sys.executable,
        "-c",
        FULL,
        str(small),
        str(image),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.stdout == "StorageError 28\n", done.stderr
