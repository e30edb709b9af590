"""What a fork is made from, as the process of the parent gives it and that of the child takes it. Trio.

The parent's process holds a checkpoint of its machine for as long as somebody makes children of it, and tells them in
plain data where it is and what the parent is. The children open the files of the checkpoint through /proc, so nothing
has a name, and nothing is left when any of the processes is killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from trio_sandbox.checkpoint import take_checkpoint
from trio_sandbox.errors import SandboxError, UnsupportedError
from trio_sandbox.files import write_all
from trio_sandbox.host.ready import host_assets
from trio_sandbox.image.pinned import note_of
from trio_sandbox.process.plain_errors import to_plain
from trio_sandbox.relay.link import LinkLost
from trio_sandbox.state.rows import Tenure
from trio_sandbox.vm.qmp import QmpClosed
from trio_sandbox.vm.supervise import Machine

if TYPE_CHECKING:
    from trio_sandbox.runtime import Runtime


@asynccontextmanager
async def forkable(runtime: Runtime) -> AsyncIterator[dict[str, Any]]:
    """A checkpoint of a sandbox that runs, for the length of the block: what `restored.restore_planned` takes.

    Raises SandboxNotRunningError, SandboxPausedError, SandboxDrainingError, UnsupportedError for a machine that cannot
    be copied, and what `take_checkpoint` raises. Cancellation: the sandbox goes on, and nothing is left.
    """
    machine, record, rootfs = runtime.machine, runtime.record, runtime.rootfs
    if not isinstance(machine, Machine) or record is None:
        raise UnsupportedError("forking a sandbox without a machine of its own")
    if rootfs is None:
        raise UnsupportedError("forking a sandbox whose root is a disk image", "boot it from an image")
    if machine.spec.ports:
        raise UnsupportedError("forking a sandbox with ports of its own")
    runtime.check_open()
    assert runtime.life is not None and runtime.link is not None
    try:
        async with runtime.life.standing_still():
            runtime.check_open()
            checkpoint = await take_checkpoint(machine, runtime.link, record.home.scratch)
    except (QmpClosed, LinkLost):
        raise runtime.failure() from None
    try:
        yield {
            "checkpoint": checkpoint.to_plain(),
            "image": note_of(rootfs),
            "config": runtime.config.in_folder(os.getcwd()).to_json(),
            "home": str(record.home.root.absolute()),
            "ephemeral": record.tenure is Tenure.EPHEMERAL,
            "parent": runtime.name,
            "qemu_version": (await host_assets(record.home)).qemu_version,
            "first_session": runtime.link.next_session,
            "stood_still": checkpoint.stood_still,
        }
    finally:
        checkpoint.close()


@asynccontextmanager
async def told_forkable(runtime: Runtime) -> AsyncIterator[str]:
    """The same in JSON for another process of this user: `source`, the path of a file that holds it, or `error`."""
    async with AsyncExitStack() as stack:
        try:
            source = await stack.enter_async_context(forkable(runtime))
        except SandboxError as error:
            yield json.dumps({"error": to_plain(error)})
            return
        file = os.memfd_create("fork", os.MFD_CLOEXEC)
        stack.callback(os.close, file)
        write_all(file, json.dumps(source).encode())  # it may be larger than a frame
        yield json.dumps({"source": f"/proc/{os.getpid()}/fd/{file}"})
