"""An agent of this host that a test runs, with the sanitizers listening."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.guest.agent_client import Client

SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:exitcode=99",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1:exitcode=99",
}


@contextmanager
def running_agent(program: Path, log: Path, may_fail: bool, events: Path | None = None) -> Iterator[Client]:
    """An agent until the end of the block; then it must end by itself, with no complaint of a sanitizer.

    Its status must be 0; with `may_fail` 1 will do too, which says that it could not boot. With `events` it listens
    there for programs.
    """
    ours, theirs = socket.socketpair()
    with log.open("wb") as stderr, ours:
        with theirs:
            command: list[str | Path] = [program, "--fd", str(theirs.fileno())]
            process = subprocess.Popen(
                [*command, "--events", events] if events else command,
                pass_fds=[theirs.fileno()],
                stderr=stderr,
                env={**os.environ, **SANITIZERS},
            )
        try:
            client = Client(ours, process.pid)
            yield client
            # The usual end of a test: the host goes away, so the agent ends what runs, and itself.
            client.end()
            process.wait(20)
        finally:
            process.kill()
            process.wait()
    said = log.read_text(errors="replace")
    assert "ERROR: " not in said, said
    assert "runtime error" not in said, said
    assert process.returncode in ((0, 1) if may_fail else (0,)), (process.returncode, said)
