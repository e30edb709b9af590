"""Taking a checkpoint of a machine that runs, which goes on: what forks and snapshots with memory are made of.

Order: the writable disk is mirrored while the machine runs; then the agent sends what it has and holds still, the
virtual CPUs stop, the mirror is finished, the pages that the machine has changed and the state of its devices are
copied, and all goes on. What costs time is done before or after the machine stands still.

Runs in: the caller's task. Owns: nothing but what it returns. Cancellation: the machine goes on as if nothing had been
asked; no job and no file is left.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from trio_sandbox.errors import CheckpointError, StorageError
from trio_sandbox.files import anonymous_file, descriptor_path, storage_errors
from trio_sandbox.relay.link import AgentLink
from trio_sandbox.relay.messages import Clock
from trio_sandbox.vm.checkpoint import Checkpoint
from trio_sandbox.vm.guest_memory import Pages, changed, guest_address
from trio_sandbox.vm.mirror import mirrored
from trio_sandbox.vm.qmp import QmpClosed, QmpError
from trio_sandbox.vm.supervise import Machine

log = logging.getLogger("trio_sandbox.checkpoint")

FREEZE_TIMEOUT = 5.0
"""Seconds for the agent to send what it has and hold still. It has real-time priority: a millisecond is usual."""
STILL_TIMEOUT = 30.0
"""Seconds that a machine may stand still at most: 12 ms is usual. A disk that hangs must not keep it for ever."""
SPARE = 4 << 20
"""Bytes of memory that a machine may change between the first look at it and the moment when it stands still, for
which room is made beforehand."""
FULL = 1 << 20
"""Bytes: with less than that free, a failure is that of a full disk."""


async def take_checkpoint(machine: Machine, link: AgentLink, folder: Path) -> Checkpoint:
    """Copy a machine that runs, into files without a name in `folder`. The caller closes the checkpoint.

    Raises CheckpointError when the machine cannot be copied, StorageError for a full disk, HostNotReadyError where its
    memory may not be read; QmpClosed or LinkLost when it ends meanwhile. The machine goes on in any case.
    """
    with ExitStack() as stack:
        state, upper = (anonymous_file(folder) for _ in range(2))
        stack.callback(os.close, state)
        stack.callback(os.close, upper)
        _make_room(machine, upper, folder)
        address = await guest_address(machine.qmp)
        size = machine.spec.memory_mib << 20
        known = await trio.to_thread.run_sync(changed, machine.pid, address, size)
        room = sum(length for _, length in known) + SPARE
        pages = await trio.to_thread.run_sync(Pages.with_room, room)
        stack.callback(pages.close)
        try:
            async with mirrored(machine.qmp, UPPER_NODE, upper) as finish, _lent(machine, state) as name:
                async with _still(machine, link) as stillness:
                    pages = await trio.to_thread.run_sync(_read_pages, pages, machine.pid, address, size)
                    await finish()
                    await machine.qmp.execute("xen-save-devices-state", filename=name, live=False)
        except QmpError as error:
            raise _blamed(error, folder) from error
        checkpoint = Checkpoint.of(machine.spec, state, pages, upper, stillness.seconds)
        stack.pop_all()
        return checkpoint


UPPER_NODE = "disk1"
"""QEMU's name of the writable disk, behind the base."""


def _make_room(machine: Machine, upper: int, folder: Path) -> None:
    """Size the copy of the disk, and refuse at once what cannot fit."""
    original = os.fstat(machine.spec.disks[1].descriptor)
    found = os.statvfs(folder)
    if found.f_bavail * found.f_frsize < original.st_blocks * 512 + FULL:
        raise StorageError(str(folder), errno.ENOSPC, f"a copy of the disk takes {original.st_blocks >> 11} MiB")
    with storage_errors(folder):
        os.ftruncate(upper, original.st_size)


def _read_pages(pages: Pages, pid: int, address: int, size: int) -> Pages:
    return pages.read_from(pid, address, changed(pid, address, size))


@asynccontextmanager
async def _lent(machine: Machine, state: int) -> AsyncIterator[str]:
    """A name by which QEMU can write to the file, for the length of the block."""
    writable = os.open(descriptor_path(state), os.O_WRONLY | os.O_CLOEXEC)
    try:
        name = await machine.qmp.lend(writable)
    finally:
        os.close(writable)
    try:
        yield name
    finally:
        with trio.move_on_after(FREEZE_TIMEOUT, shield=True):
            await _harmless(partial(machine.qmp.take_back, name))


@attrs.define
class _Stillness:
    """How long it was."""

    seconds: float = 0.0


@asynccontextmanager
async def _still(machine: Machine, link: AgentLink) -> AsyncIterator[_Stillness]:
    """The machine stands still between two frames for the length of the block, which is shielded and bounded."""
    with trio.move_on_after(FREEZE_TIMEOUT, shield=True) as patience:
        await link.freeze()
    if patience.cancelled_caught:
        link.abandon_freeze()
        raise CheckpointError(f"the agent did not hold still within {FREEZE_TIMEOUT:g} s")
    stillness, began = _Stillness(), trio.current_time()
    try:
        with trio.move_on_after(STILL_TIMEOUT, shield=True) as patience:
            await machine.qmp.execute("stop")
            yield stillness
    finally:
        with trio.move_on_after(STILL_TIMEOUT, shield=True):
            await _harmless(partial(machine.qmp.execute, "cont"))
        stillness.seconds = trio.current_time() - began
        link.thaw()
        if link.accepting:
            link.send(Clock(time.time_ns()))  # the guest's clock stood still too
    if patience.cancelled_caught:
        raise CheckpointError(f"copying it took more than {STILL_TIMEOUT:g} s")


async def _harmless(call: Callable[[], Awaitable[object]]) -> None:
    """A call that puts right what it can."""
    try:
        await call()
    except (QmpError, QmpClosed) as error:
        log.debug("%s", error)


def _blamed(error: QmpError, folder: Path) -> StorageError | CheckpointError:
    """Whether it was the disk, which QEMU does not tell reliably."""
    found = os.statvfs(folder)
    if found.f_bavail * found.f_frsize < FULL or "No space left" in error.description:
        return StorageError(str(folder), errno.ENOSPC, "the disk is full")
    return CheckpointError(str(error))
