"""What is put into a machine that is ready, before anybody may use it: patches, once, and scripts, at every start.

The host drives the agent's file operations over sessions of its own; docs/wire.md, *Files*, says how `root` keeps them
within the sandbox's disk whatever links an image has. Runs in: the task of the sandbox, in the state CREATING. Trio.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from trio_sandbox.client.fs_call import FsCall
from trio_sandbox.client.fs_host import send_file, send_tree
from trio_sandbox.client.fs_records import TreeRecord
from trio_sandbox.client.fs_streams import FsWriteSink, check_written_untrusted
from trio_sandbox.client.fs_types import FOLDER, REGULAR, path_bytes, raw_path
from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import BootError, FilesystemError, PatchFailedError
from trio_sandbox.machine import EXIT_TIMEOUT
from trio_sandbox.patch import PatchConfig, PatchKind
from trio_sandbox.relay.link import AgentLink, Session
from trio_sandbox.relay.messages import Done, Fs
from trio_sandbox.scripts import FOLDER as SCRIPTS
from trio_sandbox.scripts import script_file
from trio_sandbox.service import service
from trio_sandbox.state.rows import Tenure
from trio_sandbox.vm.running import RunningMachine

DISK = b"/"
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)
_HINTS = {
    errno.EEXIST: "it exists; pass replace=True to replace it",
    errno.EISDIR: "a folder is in its place; remove that first",
    errno.ENOTDIR: "something else than a folder is in the place of a folder; remove that first",
    errno.EXDEV: "a link leads it off the sandbox's disk, to where something else is mounted",
    errno.ELOOP: "a symbolic link leads nowhere, or into /proc",
}


async def prepare_guest(config: SandboxConfig, tenure: Tenure, machine: RunningMachine, link: AgentLink) -> None:
    """Apply the patches of a new sandbox, and put its scripts in place.

    `boot_timeout` is the time that may pass without progress. Raises PatchFailedError, BootError, RemoteProtocolError.
    Cancellation: a part of it is done; the machine is of no more use.
    """
    patches = config.patches if tenure is not Tenure.KNOWN else ()
    if not patches and not config.scripts:
        return
    async with service(_watch, machine, link, name="machine that is prepared"):
        with trio.CancelScope() as patience:
            operations = _Operations(link, patience, config.boot_timeout)
            for index, patch in enumerate(patches):
                await _apply(operations, index, patch)
            if patches and tenure is Tenure.NEW:  # `start` will not apply them again
                await operations.do("sync", DISK)
            if config.scripts:
                await _put_scripts(operations, config)
        if patience.cancelled_caught:
            raise BootError("agent", f"patches or scripts made no progress for {config.boot_timeout:g} s")


async def _watch(machine: RunningMachine, link: AgentLink, *, task_status: trio.TaskStatus[None]) -> None:
    """Let the sessions know when the machine has gone."""
    task_status.started()
    await link.lost.wait()
    with trio.move_on_after(EXIT_TIMEOUT):
        await machine.exited.wait()
    link.fail(lambda: BootError("agent", "the machine ended before it was ready", machine.console.tail()))
    await trio.sleep_forever()


class _Call(FsCall):
    """An operation that tells when it has moved on."""

    def __init__(self, session: Session, path: bytes, moved: Callable[[], None]) -> None:
        super().__init__(session, path)
        self._moved = moved

    async def send(self, data: bytes) -> None:
        await super().send(data)
        self._moved()


@attrs.frozen
class _Operations:
    """File operations of the host itself, as root: they belong to no client."""

    link: AgentLink
    patience: trio.CancelScope
    timeout: float

    def open(self, op: str, path: bytes, **options: Any) -> FsCall:
        """Begin an operation."""
        made: list[Session] = []

        def make(number: int) -> Session:
            made.append(Session(number, self.link, ended=lambda: None))
            return made[0]

        self._moved()
        self.link.open(Fs(op=op, path=path, **options), 0, make, counts=False)
        return _Call(made[0], path, self._moved)

    def _moved(self) -> None:
        self.patience.deadline = trio.current_time() + self.timeout

    async def do(self, op: str, path: bytes, data: bytes | None = None, **options: Any) -> Done:
        """One operation from its beginning to its end; data: its input."""
        async with self.open(op, path, **options) as call:
            if data is not None:
                call.feed(data)
            return await call.finish()

    async def write(self, path: bytes, data: bytes, **options: Any) -> None:
        """Write a file that is in memory."""
        done = await self.do("write", path, data, root=DISK, **options)
        check_written_untrusted(done.count, len(data))

    def sink(self, path: bytes, replace: bool, mode: int) -> FsWriteSink:
        """Write a file piece by piece."""
        return FsWriteSink(self.open("write", path, root=DISK, replace=replace, mode=mode))


async def _apply(operations: _Operations, index: int, patch: PatchConfig) -> None:
    try:
        await _APPLY[patch.kind](operations, patch, path_bytes(patch.guest_path))
    except FilesystemError as error:
        reason = _HINTS.get(error.errno, error.strerror)
        raise PatchFailedError(index, patch.kind, error.path, reason, error.errno) from error
    except OSError as error:  # of the source
        path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else patch.src or ""
        raise PatchFailedError(index, patch.kind, path, error.strerror or str(error), error.errno or 0) from error


async def _write(operations: _Operations, patch: PatchConfig, path: bytes) -> None:
    await operations.write(path, patch.data, mode=_mode(patch), replace=patch.replace)


async def _append(operations: _Operations, patch: PatchConfig, path: bytes) -> None:
    await operations.write(path, patch.data, append=True)


async def _copy_file(operations: _Operations, patch: PatchConfig, path: bytes) -> None:
    def sink(mode: int) -> FsWriteSink:
        return operations.sink(path, patch.replace, mode if patch.mode is None else patch.mode)

    await send_file(Path(patch.src or ""), sink)


async def _copy_dir(operations: _Operations, patch: PatchConfig, path: bytes) -> None:
    async with operations.open("unpack", path, root=DISK, replace=patch.replace) as call:
        await send_tree(Path(patch.src or ""), call)


async def _symlink(operations: _Operations, patch: PatchConfig, path: bytes) -> None:
    await operations.do("symlink", path, root=DISK, to=raw_path(patch.target or ""), replace=patch.replace)


async def _mkdir(operations: _Operations, patch: PatchConfig, path: bytes) -> None:
    await operations.do("mkdir", path, root=DISK, mode=_mode(patch), recursive=True)


async def _remove(operations: _Operations, patch: PatchConfig, path: bytes) -> None:
    for op in ("remove", "remove_dir"):
        try:
            await operations.do(op, path, root=DISK, recursive=True)
        except FilesystemError as error:
            if error.errno in _NOT_THERE:
                return
            if op == "remove_dir" or error.errno != errno.EISDIR:
                raise
        else:
            return


def _mode(patch: PatchConfig) -> int:
    return -1 if patch.mode is None else patch.mode


_APPLY = {
    PatchKind.TEXT: _write,
    PatchKind.FILE: _write,
    PatchKind.APPEND: _append,
    PatchKind.COPY_FILE: _copy_file,
    PatchKind.COPY_DIR: _copy_dir,
    PatchKind.SYMLINK: _symlink,
    PatchKind.MKDIR: _mkdir,
    PatchKind.REMOVE: _remove,
}


async def _put_scripts(operations: _Operations, config: SandboxConfig) -> None:
    """All in one operation: each costs a process in the guest."""
    folder, _, name = SCRIPTS.rpartition("/")
    record = partial(TreeRecord, mtime_ns=time.time_ns())
    pieces = [record(b"", FOLDER | 0o755).pack()]
    for script, body in config.scripts.items():
        content = script_file(body, config.shell)
        pieces += (record(script.encode(), REGULAR | 0o755, size=len(content)).pack(), content)
    try:
        await operations.do("unpack", f"/{name}".encode(), b"".join(pieces), root=folder.encode(), replace=True)
    except FilesystemError as error:
        raise BootError("scripts", f"{folder}{error.path}: {error.strerror}") from error
