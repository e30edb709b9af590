"""Where a sandbox keeps what is its own. No I/O but the removal."""

from __future__ import annotations

import os
import select
import signal
from functools import partial
from pathlib import Path

from trio_sandbox.errors import SandboxNotFoundError, SandboxStillRunningError
from trio_sandbox.home import Home
from trio_sandbox.lifecycle import End, EndReason
from trio_sandbox.locks import waited_name
from trio_sandbox.state.owner import Owner
from trio_sandbox.state.rows import SandboxRow
from trio_sandbox.state.store import Store


def folder_of(home: Home, name: str) -> Path:
    """Where a sandbox keeps what is its own. Not made here."""
    return home.folder("sandboxes") / name


def disk_of(home: Home, name: str) -> Path:
    """The writable disk of a sandbox that stays."""
    return folder_of(home, name) / "upper.ext4"


def store_of(home: Home) -> Store:
    """The store, which removes what a dead owner left on disk."""
    return Store.of(home, partial(remove_traces, home))


def remove_traces(home: Home, name: str, forgotten: bool = True) -> None:
    """Remove the socket of a sandbox that has ended, and what it kept if it is forgotten. Harmless when it is gone."""
    if forgotten:
        import shutil  # with what it imports dearer than a look at the store

        shutil.rmtree(folder_of(home, name), ignore_errors=True)
    socket_of(home, name).unlink(missing_ok=True)


def last_end(home: Home, name: str) -> End | None:
    """How the last run of a sandbox ended; None while it runs, or when it is forgotten. Raises StorageError."""
    try:
        runs = store_of(home).runs(name)
    except SandboxNotFoundError:
        return None
    if not runs or not runs[-1].reason:
        return None
    return End(EndReason(runs[-1].reason), runs[-1].exit_code, runs[-1].console_tail)


def note_kill(home: Home, name: str) -> None:
    """Write down that a sandbox's process, which is gone now, was killed on purpose. Raises StorageError."""
    store_of(home).end_run(name, End(EndReason.KILLED, -signal.SIGKILL))


def kill_process(row: SandboxRow, home: Home) -> None:
    """End a sandbox's own process, which does not answer, and write down that it was killed. Blocks until it is gone.

    Harmless when it is gone already. Raises SandboxStillRunningError for a sandbox of a block in somebody's program.
    """
    if row.owner is None or row.socket != str(socket_of(home, row.name)):
        raise SandboxStillRunningError(row.name)
    try:
        process = os.pidfd_open(row.owner.pid)
    except ProcessLookupError:
        return
    try:
        if row.owner.is_alive:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [])
            note_kill(home, row.name)
    except ProcessLookupError:
        pass
    finally:
        os.close(process)


def is_live(home: Home, name: str) -> bool:
    """Whether there is a sandbox of this name that lives. May wait for the database for a moment."""
    try:
        return store_of(home).get(name).is_live
    except SandboxNotFoundError:
        return False


FORGET_TIMEOUT = 10.0
"""Seconds that a removal waits for a process that has ended its sandbox and is about to end itself."""


def forget(home: Home, name: str, *, identity: tuple[int, int] | None = None, missing_ok: bool = False) -> None:
    """Remove a sandbox that does not run, with all that it kept. Blocks: call it in a worker thread.

    identity: its creation and run, if that very one is meant: what has been created or started since under the same
    name is left alone.

    Raises SandboxStillRunningError, SandboxNotFoundError, StorageError.
    """
    if not _may_be_forgotten(home, name, identity, missing_ok):
        return
    with waited_name(home, name, FORGET_TIMEOUT):
        if _may_be_forgotten(home, name, identity, missing_ok):  # still: nobody can create it while we have its name
            erase(home, name)


def erase(home: Home, name: str) -> None:
    """Remove a sandbox that nobody runs, with all that it kept; the caller has its name. Harmless when it is gone.

    The row goes last, and says meanwhile that the sandbox goes with its owner, which we are: so whoever comes across
    half of it after our death removes the rest.
    """
    store = store_of(home)
    store.condemn(name, Owner.current())
    remove_traces(home, name)
    store.discard(name)


def _may_be_forgotten(home: Home, name: str, identity: tuple[int, int] | None, missing_ok: bool) -> bool:
    store = store_of(home)
    try:
        row, runs = store.get(name), store.runs(name)
    except SandboxNotFoundError:
        if not missing_ok:
            raise
        return identity is None
    if identity not in (None, (row.created_ns, runs[-1].number if runs else 0)):
        return False
    if row.is_live and not row.is_going:
        raise SandboxStillRunningError(name)
    return True


def socket_of(home: Home, name: str) -> Path:
    """Where the relay of a sandbox with a process of its own listens: a short name, however long the sandbox's is."""
    import hashlib  # OpenSSL: nothing that only looks at the store needs it

    return home.run / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.sock"
