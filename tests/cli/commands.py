"""The program `trio-sandbox` in a process of its own, as people and scripts call it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.client.ptys import Person

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "trio_sandbox"]


def environment(home: Path | None) -> dict[str, str]:
    """Ours, with another data folder."""
    there = {} if home is None else {"TRIO_SANDBOX_HOME": str(home)}
    return {**os.environ, "PYTHONPATH": str(ROOT), **there}


async def run(*words: str, home: Path | None = None, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, with a pipe for each stream."""
    return await trio.run_process(
        [*PROGRAM, *words], env=environment(home), stdin=stdin, capture_stdout=True, capture_stderr=True, check=False
    )


async def said(*words: str, home: Path | None = None, stdin: bytes = b"") -> str:
    """What a command prints that succeeds."""
    done = await run(*words, home=home, stdin=stdin)
    assert done.returncode == 0, (words, done)
    return done.stdout.decode()


@asynccontextmanager
async def on_terminal(
    somebody: Person, *words: str, home: Path | None = None, status: int = 0
) -> AsyncIterator[trio.Process]:
    """A command in front of somebody. The end of the block waits for its end, which must have this exit status."""
    somebody.seen.clear()
    argv = [*PROGRAM, *words]
    process = await trio.lowlevel.open_process(
        argv, env=environment(home), stdin=somebody.slave, stdout=somebody.slave, stderr=somebody.slave
    )
    try:
        yield process
        assert await process.wait() == status, somebody.look()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()  # noqa: ASYNC102 - it was killed
