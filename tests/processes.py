"""Processes that a test starts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import AnyStr


@contextmanager
def ended(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """Leave with `process` ended and its pipes closed; killed, if the block fails.

    The context manager of `Popen` itself only waits: an assertion that fails in its block would wait for ever for a
    process that nobody ends any more.
    """
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def children() -> set[int]:
    """The pids of this process's children, whichever of its threads has them: one that exits leaves them to another."""
    while True:
        try:
            lists = [(task / "children").read_text() for task in Path("/proc/self/task").iterdir()]
        except FileNotFoundError:  # a thread ended meanwhile: another may have its children now
            continue
        return {int(pid) for line in lists for pid in line.split()}
