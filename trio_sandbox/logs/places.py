"""Where the logs of a sandbox are, and who writes them. Sync; the only I/O is the lock.

Whoever writes the logs holds a lock on their folder. The kernel lets go of it when the writer dies, however it does, so
a reader can tell for sure whether anything can still come.
"""

from __future__ import annotations

import enum
import fcntl
import os
from pathlib import Path

from trio_sandbox.errors import SandboxNotFoundError
from trio_sandbox.logs.entry import LogSource


class LogFile(enum.StrEnum):
    """The files of a sandbox's logs. All have the same form; each is followed by those it was set aside as."""

    EXEC = "exec.log"
    """The output of programs, and the marks of the lifecycle."""
    RUNTIME = "runtime.log"
    """What the runtime says through the logger "trio_sandbox"."""
    KERNEL = "kernel.log"
    """What the guest prints on its console."""


def files_of(sources: frozenset[LogSource]) -> tuple[LogFile, ...]:
    """The files in which entries of these sources are."""
    return tuple(LogFile) if LogSource.SYSTEM in sources else (LogFile.EXEC,)


def logs_of(folder: Path) -> Path:
    """The folder of the logs, in the sandbox's own folder. Not made here."""
    return folder / "logs"


def found_logs(folder: Path, name: str) -> Path:
    """The same, to read from. Raises SandboxNotFoundError when the sandbox has been removed."""
    if not folder.is_dir():
        raise SandboxNotFoundError(name)
    return logs_of(folder)


def locked(folder: Path) -> int:
    """Become the writer of the logs in `folder`; the descriptor that holds the lock. Waits for a look of a reader."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_written(folder: Path) -> bool:
    """Whether somebody writes the logs in `folder`."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
