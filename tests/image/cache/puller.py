"""Pulling in other processes, some of which are killed: `python -m tests.image.cache.puller TASK HOME …`.

pull HOME IMAGE PIECE PAUSE [DEATH]   pull, and print how many bytes of each blob were served, as JSON; with DEATH,
                                      be killed when so many bytes were served
crash HOME SEED ROUNDS                pull again and again, killed at random lines of the cache's code, and see each
                                      time that what is left is of use
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import trio

from tests.image.cache.remotes import REFERENCE, Registry, obtain
from tests.image.images import Item, TestImage, layer_tar, make_image
from trio_sandbox.config import PullPolicy
from trio_sandbox.errors import ImageNotFoundError
from trio_sandbox.home import Home
from trio_sandbox.image.cache import blobs
from trio_sandbox.image.cache.catalog import Catalog
from trio_sandbox.image.cache.collect import prune, remove_image, usage
from trio_sandbox.image.cache.records import Records
from trio_sandbox.image.squashfs import is_sound, squashfs_path

CACHE = os.path.dirname(blobs.__file__)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def pull(home: Home, image: TestImage, piece: int, pause: float, death: int | None) -> None:
    registry = Registry(image, piece, pause)

    def before() -> None:
        if death is not None and sum(registry.served.values()) >= death:
            die()

    registry.before = before
    trio.run(obtain, home, registry)
    print(json.dumps(registry.served))


def demo(text: str) -> TestImage:
    layers = [layer_tar([Item("shared", bytes(range(256)) * 200)]), layer_tar([Item("a", text.encode() * 3000)])]
    return make_image(layers, compression="gzip")


class Tracer:
    """Kills this process at the nth line of the cache that it runs. most: how many there were, when it lives."""

    def __init__(self, deadly: int) -> None:
        self.deadly = deadly
        self.count = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(CACHE):
            return None
        if event == "line":
            self.count += 1
            if self.count == self.deadly:
                die()
        return self

    def run(self, function: Callable[[], None]) -> None:
        threading.settrace(self)
        sys.settrace(self)
        try:
            function()
        finally:
            sys.settrace(None)
            threading.settrace(None)


def in_child(function: Callable[[], None]) -> int:
    """Run it in a forked process; the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:  # noqa: ASYNC103 - the process ends next
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status <= 0, "it failed by itself"
    return -status


def life(home: Home, text: str) -> None:
    """All that changes a cache: a pull, a moved tag, a removal, the rest swept."""
    trio.run(obtain, home, Registry(demo(text)))
    trio.run(obtain, home, Registry(demo(text + "moved")), PullPolicy.ALWAYS)
    trio.run(obtain, home, Registry(demo(text)), PullPolicy.ALWAYS, lambda _: None, "other")
    remove_image(home, "other", "other")
    prune(home)


def check(home: Home, text: str) -> None:
    """What is left is of use: everything can be asked, and the image is had again, by whatever way."""
    usage(home)
    for image in Catalog(home).all():
        assert is_sound(squashfs_path(image.chain_id, home)), image.record
    try:
        trio.run(obtain, home, Registry(demo("nothing")), PullPolicy.NEVER)
    except ImageNotFoundError:
        assert Records(home).find(REFERENCE) is None, "what has a name is whole"
    had = trio.run(obtain, home, Registry(demo(text)), PullPolicy.ALWAYS)
    assert is_sound(squashfs_path(had.chain_id, home))
    prune(home, unused=True)
    left = [path for path in (home.root / "cache").rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert left == [], left


def crash(home: Home, seed: int, rounds: int) -> None:
    chance = random.Random(seed)
    tracer = Tracer(0)
    tracer.run(lambda: life(home, "count"))
    lines = tracer.count
    killed = 0
    for number in range(rounds):
        shutil.rmtree(home.root)
        deadly = chance.randrange(1, lines)
        killed += in_child(lambda: Tracer(deadly).run(lambda: life(home, "demo"))) == signal.SIGKILL  # noqa: B023
        assert in_child(lambda: check(home, "demo")) == 0, (seed, number, deadly)
    print(json.dumps({"lines": lines, "killed": killed}))


def main() -> None:
    task, home, *rest = sys.argv[1:]
    if task == "crash":
        crash(Home(Path(home)), int(rest[0]), int(rest[1]))
    else:
        with open(rest[0], "rb") as file:
            image = pickle.load(file)
        pull(Home(Path(home)), image, int(rest[1]), float(rest[2]), int(rest[3]) if rest[3:] else None)


if __name__ == "__main__":
    main()
