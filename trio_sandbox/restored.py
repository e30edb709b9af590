"""A machine that goes on from a checkpoint of another one, in the place of one that is booted or cloned.

Owns: the machine and its link, as `serve_machine` does. There is no second way: what a checkpoint holds cannot be had
by booting.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from trio_sandbox.binaries import host_program_path
from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import BootError
from trio_sandbox.files import anonymous_copy, closing_descriptor, publish
from trio_sandbox.home import Home
from trio_sandbox.host.ready import host_assets
from trio_sandbox.image.cache.leases import leased
from trio_sandbox.image.pinned import noted, pin
from trio_sandbox.machine import CLONE_TIMEOUT, identification, introduce
from trio_sandbox.pull_event import OnPull
from trio_sandbox.relay.link import AgentLink, LinkLost
from trio_sandbox.runtime import Runtime
from trio_sandbox.service import service
from trio_sandbox.snapshot.memory import opened_checkpoint
from trio_sandbox.snapshot.root import root_of
from trio_sandbox.snapshot.store import Artifact
from trio_sandbox.state.places import disk_of
from trio_sandbox.state.rows import Tenure
from trio_sandbox.vm.checkpoint import Checkpoint
from trio_sandbox.vm.console import Record
from trio_sandbox.vm.supervise import Machine, supervise_vmm


@attrs.frozen
class RestorePlan:
    """What a machine goes on from. upper: descriptor of its own copy of the writable disk. durable: whether the guest's
    flushes reach the host's disk. mark and record: as in MachinePlan.
    """

    config: SandboxConfig
    checkpoint: Checkpoint
    upper: int
    durable: bool
    chain_id: str
    first_session: int
    mark: Callable[[str], None] = attrs.field(eq=False)
    record: Record | None = attrs.field(default=None, eq=False)

    @property
    def acceleration(self) -> str:
        """As of the machine that it goes on from."""
        return str(self.checkpoint.facts["acceleration"])


async def serve_restored(
    plan: RestorePlan, *, task_status: trio.TaskStatus[tuple[Machine, AgentLink]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Make the machine of `plan` and own it. Reports `started((machine, link))` when programs can run in it.

    Raises BootError, HostNotReadyError, RemoteProtocolError. Cancellation: the machine is killed and reaped.
    """
    name, upper, durable = plan.config.name, plan.upper, plan.durable
    build = lambda sockets: plan.checkpoint.spec(  # noqa: E731 - a builder in passing
        sockets.console, sockets.monitor, sockets.agent, name, upper, durable=durable
    )
    async with service(supervise_vmm, build, host_program_path(), plan.record, CLONE_TIMEOUT) as machine:
        plan.mark("spawned")
        link = AgentLink(machine.agent, greeted=True, first_session=plan.first_session)
        async with service(link.serve, name="agent link"):
            try:
                await introduce(machine, link, identification(plan.config))
            except trio.TooSlowError:
                raise BootError("restore", f"no answer within {CLONE_TIMEOUT:g} s", machine.console.tail()) from None
            except LinkLost:
                raise BootError("restore", "the machine ended as it went on", machine.stderr.tail()) from None
            task_status.started((machine, link))
            await trio.sleep_forever()


@asynccontextmanager
async def fork_planned(
    runtime: Runtime, home: Home, tenure: Tenure, source: Mapping[str, Any]
) -> AsyncIterator[RestorePlan]:
    """A fork: `source` is what `forking.forkable` tells. Raises CheckpointError, ImageNotFoundError, StorageError."""
    assert runtime.record is not None and runtime.logs is not None
    parent, first = source["parent"], int(source["first_session"])
    with Checkpoint.opened(source["checkpoint"]) as checkpoint, leased(home) as lease:
        runtime.rootfs = await noted(source["image"], runtime.record.folder, home, lease)
        runtime.logs.mark(f"forked from {parent!r}; sessions below {first} stayed there")
        async with _planned(runtime, home, tenure, checkpoint, first) as plan:
            yield plan


@asynccontextmanager
async def snapshot_planned(
    runtime: Runtime, home: Home, tenure: Tenure, artifact: Artifact, on_pull: OnPull
) -> AsyncIterator[RestorePlan]:
    """A snapshot with memory. Raises SnapshotError, and what `snapshot.root.root_of` raises."""
    assert runtime.logs is not None
    described = artifact.description
    assert described.machine is not None
    first = described.machine.first_session
    assets = await host_assets(home)
    runtime.mark("assets")
    with leased(home) as lease:
        runtime.rootfs = rootfs = await root_of(described.image, runtime.config, home, lease, on_pull)
        runtime.logs.mark(f"goes on from snapshot {artifact.name!r}; sessions below {first} stayed there")
        with closing_descriptor(os.open(rootfs.path, os.O_RDONLY | os.O_CLOEXEC)) as base:
            async with (
                opened_checkpoint(artifact, base, assets) as checkpoint,
                _planned(runtime, home, tenure, checkpoint, first) as plan,
            ):
                yield plan


@asynccontextmanager
async def _planned(
    runtime: Runtime, home: Home, tenure: Tenure, checkpoint: Checkpoint, first_session: int
) -> AsyncIterator[RestorePlan]:
    record, logs, rootfs = runtime.record, runtime.logs, runtime.rootfs
    assert record is not None and logs is not None and rootfs is not None
    runtime.image = rootfs.config
    runtime.mark("image")
    upper = await trio.to_thread.run_sync(anonymous_copy, checkpoint.upper, home.scratch)
    with closing_descriptor(upper):
        if tenure is Tenure.NEW:
            pin(record.folder, rootfs)
            publish(upper, disk_of(home, record.name), durable=False)
        runtime.mark("disks")
        yield RestorePlan(
            config=runtime.config,
            checkpoint=checkpoint,
            upper=upper,
            durable=tenure is Tenure.NEW,
            chain_id=rootfs.chain_id,
            first_session=first_session,
            mark=runtime.mark,
            record=logs.console,
        )
