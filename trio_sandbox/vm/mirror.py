"""A copy of a disk that a running machine writes to, as it is at one moment. Trio.

QEMU mirrors the disk into a file while the guest goes on, and keeps the two equal from then on; when the machine stands
still the job is told to finish, and the file is what the disk was then. The machine's own disk is never touched: no
layer is put on it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from trio_sandbox.vm.qmp import QmpClient, QmpClosed, QmpError

JOB, TARGET = "mirror", "mirror-target"
POLL = 0.001
"""Seconds between looks at the job. 10 ms is usual until it has caught up."""
UNDO_TIMEOUT = 10.0
"""Seconds to take back a job that is of no more use."""


@asynccontextmanager
async def mirrored(qmp: QmpClient, node: str, target: int) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Mirror QEMU's block node `node` into the file of descriptor `target`, which has its size and no data. The block
    begins when they are equal; it calls the value, once, when the machine stands still.

    Raises QmpError when the target cannot be written, QmpClosed. Cancellation, or a block that fails: the job is taken
    back.
    """
    name = await qmp.lend(target)
    try:
        await qmp.execute("blockdev-add", **_target(name))
        await qmp.execute(
            "blockdev-mirror",
            **{
                "job-id": JOB,
                "device": node,
                "target": TARGET,
                "sync": "full",
                "copy-mode": "write-blocking",
                "on-target-error": "report",
                "auto-dismiss": False,
            },
        )
        await _reached(qmp, "ready")
        yield lambda: _finish(qmp)
    finally:
        with trio.move_on_after(UNDO_TIMEOUT, shield=True):
            await _undo(qmp, name)


def _target(name: str) -> dict[str, Any]:
    # Nobody else knows the file, and QEMU's own look at locks fails on a lent descriptor.
    file = {"driver": "file", "filename": name, "locking": "off", "discard": "unmap"}
    return {"driver": "raw", "node-name": TARGET, "discard": "unmap", "file": file}


async def _job(qmp: QmpClient) -> dict[str, Any]:
    jobs: list[dict[str, Any]] = await qmp.execute("query-jobs")
    return next((job for job in jobs if job["id"] == JOB), {"status": "null"})


async def _reached(qmp: QmpClient, status: str) -> None:
    while (job := await _job(qmp))["status"] != status:
        if job["status"] in ("concluded", "null"):
            raise QmpError("blockdev-mirror", str(job.get("error", "the job ended too soon")))
        await trio.sleep(POLL)


async def _finish(qmp: QmpClient) -> None:
    # What QEMU calls cancelling a job that has caught up is to end it with the copy whole, and to stay on the original.
    await qmp.execute("block-job-cancel", device=JOB)
    await _reached(qmp, "concluded")
    if problem := (await _job(qmp)).get("error"):
        raise QmpError("blockdev-mirror", str(problem))


async def _undo(qmp: QmpClient, name: str) -> None:
    """Remove what there is of job and target. What is not there is no fault."""
    try:
        if (await _job(qmp))["status"] not in ("concluded", "null"):
            await qmp.execute("block-job-cancel", device=JOB, force=True)
            await _reached(qmp, "concluded")
        for command, arguments in (("job-dismiss", {"id": JOB}), ("blockdev-del", {"node-name": TARGET})):
            try:
                await qmp.execute(command, **arguments)
            except QmpError:
                continue
        await qmp.take_back(name)
    except (QmpError, QmpClosed):
        pass
