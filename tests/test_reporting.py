"""What a forked process says while nobody listens."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator

import pytest

from trio_sandbox.process.reporting import say, say_event
from trio_sandbox.process.spawn import REPORT_BYTES
from trio_sandbox.pull_event import PullEvent

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, REPORT_BYTES)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def told(reading: int) -> list[PullEvent]:
    os.set_blocking(reading, False)
    data = b""
    try:
        while piece := os.read(reading, 1 << 16):
            data += piece
    except BlockingIOError:
        pass
    return [PullEvent(**json.loads(line)["pull"]) for line in data.splitlines()]


def test_progress_is_lost_before_anything_else(pipe: tuple[int, int]) -> None:
    """All events of as many layers as an image may have find room, and what progress finds room beside them."""
    reading, writing = pipe
    others = 0
    for index in range(256):
        for _ in range(100):
            event = PullEvent("layer_download_progress", layer_index=index, digest=DIGEST, downloaded_bytes=1 << 40)
            say_event(writing, event)
        for event_type in ("layer_download_complete", "layer_download_verifying", *["layer_materialize_writing"] * 3):
            say_event(writing, PullEvent(event_type, layer_index=index, digest=DIGEST, downloaded_bytes=1 << 40))
            others += 1
    say_event(writing, PullEvent("complete", reference="demo", layer_count=256))
    heard = told(reading)
    assert sum(not event.is_progress for event in heard) == others + 1
    assert heard[-1].event_type == "complete"
    assert sum(event.is_progress for event in heard) > 1000


def test_a_full_pipe_holds_nobody_up(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    for _ in range(20_000):
        say_event(writing, PullEvent("resolving", reference="x" * 100))
    assert 1000 < len(told(reading)) < 20_000
    say_event(writing, PullEvent("complete", reference="x" * 5000))  # more than goes into a pipe whole
    assert told(reading) == []


def test_nobody_is_there() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    say_event(writing, PullEvent("resolving", reference="demo"))
    say(writing, {"result": []})
    os.close(writing)
