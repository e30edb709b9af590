"""`serve_sandbox`, the one function that is a sandbox, and `open_sandbox`, which runs it in the caller's task tree.

Read `serve_sandbox` from the outside in: name, disks, room on the host, VMM, agent stream, ready. Leaving a block is
the shutdown step of what it entered, and the services make the order of death the order of indentation, whatever began
it: the end of the block, a request, an outside cancel or a crash. Nothing has a name on disk, so nothing is left when
all of it is killed at once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from trio_sandbox.admission.admitted import Urgency, admitted, require_possible
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.config import SandboxConfig
from trio_sandbox.files import closing_descriptor, publish, storage_errors
from trio_sandbox.home import Home
from trio_sandbox.host.ready import host_assets
from trio_sandbox.image.cache.leases import leased
from trio_sandbox.image.disk import DiskLayer, opened_disk
from trio_sandbox.image.pinned import pin, pinned
from trio_sandbox.image.root import prepare_root
from trio_sandbox.image.rootfs import RootFilesystem
from trio_sandbox.life import STOP_TIMEOUT
from trio_sandbox.lifecycle import End, State
from trio_sandbox.logs.recorder import recorded_logs
from trio_sandbox.machine import DISK, MachinePlan, serve_machine
from trio_sandbox.names import reserved_name
from trio_sandbox.patch_sources import require_sources
from trio_sandbox.preparation import prepare_guest
from trio_sandbox.pull_event import OnPull, ignore
from trio_sandbox.relay.link import AgentLink
from trio_sandbox.restored import RestorePlan, fork_planned, serve_restored, snapshot_planned
from trio_sandbox.runtime import Runtime
from trio_sandbox.service import service
from trio_sandbox.snapshot.memory import memory_snapshot
from trio_sandbox.snapshot.root import prepare_snapshot
from trio_sandbox.state.places import disk_of, is_live
from trio_sandbox.state.record import Record, recorded
from trio_sandbox.state.rows import Tenure
from trio_sandbox.vm.command import Backing, Disk, Port, memory_cost_mib
from trio_sandbox.vm.running import RunningMachine

log = logging.getLogger("trio_sandbox.sandbox")


async def serve_sandbox(
    config: SandboxConfig,
    home: Home,
    ports: tuple[Port, ...] = (),
    *,
    tenure: Tenure = Tenure.EPHEMERAL,
    detached: bool = False,
    socket: Path | None = None,
    on_pull: OnPull = ignore,
    is_kept: Callable[[], bool] = lambda: True,
    source: Mapping[str, Any] | None = None,
    urgency: Urgency | None = None,
    task_status: trio.TaskStatus[Runtime] = trio.TASK_STATUS_IGNORED,
) -> End:
    """Be the sandbox `config` until it ends, and return how it ended. Reports `started(runtime)` when it is ready.

    ports: more virtio-serial ports of the machine, which then boots cold. tenure: whether it is removed at its end,
    stays, or is one that stayed and starts again, from its own disk and the layers that it was made of. detached: what
    its row says of its owner. socket: one more Unix socket to listen on, beside what `config` asks for. on_pull: told
    what happens to the image. is_kept: whether a new sandbox stays after its end; False while nobody has taken it over.
    source: what it is forked from (`forking.py`), in the place of an image.
    urgency: whether somebody waits for it, as by default.

    Raises, before it is ready: SandboxAlreadyExistsError, SandboxNotFoundError, SandboxStillRunningError,
    HostLimitError, HostNotReadyError, ImageError, StorageError, BootError, PatchFailedError, and InvalidConfigError for
    a patch whose source is not there and for a faulty limits.toml; afterwards: SandboxCrashedError,
    RemoteProtocolError.
    Cancellation: the machine is killed; of an ephemeral sandbox nothing is left when the cancellation goes on.
    """
    artifact = None
    if tenure is not Tenure.KNOWN:
        await trio.to_thread.run_sync(require_sources, config.patches)
        if source is None:
            artifact, config = await memory_snapshot(config, home)
    runtime = Runtime(config, socket)
    planned: AbstractAsyncContextManager[MachinePlan | RestorePlan]
    if source is not None:
        planned = fork_planned(runtime, home, tenure, source)
    elif artifact is not None:
        planned = snapshot_planned(runtime, home, tenure, artifact, on_pull)
    else:
        planned = _planned(runtime, home, tenure, ports, on_pull)
    async with (
        claimed(runtime, home, tenure, detached=detached, is_kept=is_kept),
        planned as plan,
        admitted(home, _memory_of(plan), timeout=config.admission_timeout, urgency=urgency) as share,
    ):
        runtime.mark("admitted")
        return await run_machine(
            runtime,
            partial(serve_restored, plan) if isinstance(plan, RestorePlan) else partial(serve_machine, plan),
            partial(prepare_guest, config, tenure),
            chain_id=plan.chain_id,
            on_ready=share.booted,
            task_status=task_status,
        )


@asynccontextmanager
async def claimed(
    runtime: Runtime,
    home: Home,
    tenure: Tenure,
    *,
    detached: bool = False,
    is_kept: Callable[[], bool] = lambda: True,
) -> AsyncIterator[None]:
    """The name, record and logs, from CREATING on. Raises SandboxAlreadyExistsError and what `recorded` raises."""
    config = runtime.config
    async with reserved_name(home, config.name, partial(is_live, home, config.name)):
        with runtime.lifecycle.within(State.CREATING):
            async with recorded(config, home, tenure, detached=detached, is_kept=is_kept) as record:
                async with recorded_logs(record.folder, config) as logs:
                    logs.mark("started again" if tenure is Tenure.KNOWN else "created")
                    runtime.record, runtime.logs = record, logs
                    runtime.lifecycle.on_enter = runtime.entered
                    yield


@asynccontextmanager
async def _planned(
    runtime: Runtime, home: Home, tenure: Tenure, ports: tuple[Port, ...], on_pull: OnPull
) -> AsyncIterator[MachinePlan]:
    """What the machine is made of: programs of the host, image, disks."""
    record, logs, mark = runtime.record, runtime.logs, runtime.mark
    assert record is not None and logs is not None
    config = runtime.config
    assets = await host_assets(home, disk_root=config.has_disk_root)
    mark("assets")
    plan = MachinePlan(config, home, assets, ports=ports, mark=mark, record=logs.console)
    require_possible(home, _memory_of(plan))  # before an image is pulled in vain
    if config.has_disk_root:
        async with opened_disk(config.root) as layers:
            mark("image")
            yield attrs.evolve(plan, disk=_root_disk(layers))
        return
    with leased(home) as lease:  # for life: so its image is not removed
        upper = None
        if tenure is Tenure.KNOWN:
            rootfs = await pinned(record.folder, home, lease)
        elif config.snapshot is not None:
            rootfs, upper = await prepare_snapshot(config, home, lease, on_pull)
        else:
            policy, auth = config.pull_policy, config.registry_auth
            rootfs = await prepare_root(config.root, home, lease, policy=policy, auth=auth, on_pull=on_pull)
        with ExitStack() as stack:
            if upper is not None:
                stack.enter_context(closing_descriptor(upper))
            runtime.image, runtime.rootfs = rootfs.config, rootfs
            mark("image")
            base = stack.enter_context(closing_descriptor(os.open(rootfs.path, os.O_RDONLY | os.O_CLOEXEC)))
            plan = attrs.evolve(plan, rootfs=rootfs, base=base, upper=upper)
            yield stack.enter_context(_with_upper(plan, record))


def _memory_of(plan: MachinePlan | RestorePlan) -> int:
    """MiB that it counts for. Its template is made of one of the same size, before there is the sandbox's own."""
    acceleration = plan.assets.acceleration.name if isinstance(plan, MachinePlan) else plan.acceleration
    return memory_cost_mib(plan.config.memory, acceleration)


def _root_disk(layers: Sequence[DiskLayer]) -> Disk:
    """The disk of a machine whose root is an image: what the guest writes is to be in the file."""
    first, *beneath = layers
    backing = tuple(Backing(layer.descriptor, layer.format.value) for layer in beneath)
    return Disk(DISK, first.descriptor, readonly=False, durable=True, format=first.format.value, backing=backing)


async def run_machine(
    runtime: Runtime,
    serve: Callable[..., Awaitable[object]],
    prepare: Callable[[RunningMachine, AgentLink], Awaitable[None]],
    *,
    chain_id: str = "",
    on_ready: Callable[[], None] = lambda: None,
    task_status: trio.TaskStatus[Runtime] = trio.TASK_STATUS_IGNORED,
) -> End:
    """Make the machine, live with it to its end, and return how it ended: what is the same for any kind of machine.

    serve: the service that owns it, `serve_machine` or one like it: it reports `started((machine, link))`, a
    RunningMachine and the AgentLink to its agent, when programs can run. prepare: what is done to the machine before
    anybody may use it. on_ready: called when somebody may. Else as `serve_sandbox`.
    """
    async with service(runtime.relay.serve, name="relay"):
        try:
            async with service(serve, name="machine") as (machine, link):
                await prepare(machine, link)
                life = runtime.begin(machine, link)
                if runtime.record is not None:
                    address = next(iter(runtime.addresses), "")
                    await runtime.record.ready(chain_id, address, runtime.image.labels)
                runtime.mark("ready")
                on_ready()
                log.info("%s is ready: %s", runtime.name, runtime.stages)
                with runtime.lifecycle.within(State.RUNNING):
                    task_status.started(runtime)
                await life.run()
                if not machine.exited.is_set():
                    with runtime.lifecycle.within(State.STOPPING):
                        await runtime.power_off()
        except BaseException as error:
            await _finish(runtime, error)  # noqa: ASYNC102, ASYNC120 - shielded and timed within
            raise
        await _finish(runtime, None)
    if runtime.crash is not None:
        raise runtime.crash
    assert runtime.end is not None
    return runtime.end


async def _finish(runtime: Runtime, error: BaseException | None) -> None:
    """The machine is gone: write down how, tell everyone, and give those who asked for it a moment to hear it."""
    end = runtime.find_end(error)
    if runtime.logs is not None:
        runtime.logs.ended(end)
    if runtime.record is not None:
        await runtime.record.ended(end)
    runtime.finish(end)
    await runtime.relay.last_words()


@contextmanager
def _with_upper(plan: MachinePlan, record: Record) -> Iterator[MachinePlan]:
    """The plan with the disk of a sandbox that stays: its own, or one that gets a name as soon as it is made; that of a
    snapshot has been made.
    """
    path = disk_of(plan.home, record.name)
    match record.tenure:
        case Tenure.EPHEMERAL:
            yield plan
        case Tenure.NEW:
            assert plan.rootfs is not None
            pin(record.folder, plan.rootfs)
            keep = partial(publish, path=path, durable=False)
            if plan.upper is not None:
                keep(plan.upper)
            yield attrs.evolve(plan, durable=True, name_disk=keep)
        case Tenure.KNOWN:
            with storage_errors(path):
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            with closing_descriptor(descriptor):
                yield attrs.evolve(plan, durable=True, upper=descriptor)


async def _hosted(
    config: SandboxConfig, home: Home, tenure: Tenure, on_pull: OnPull, *, task_status: trio.TaskStatus[Runtime]
) -> None:
    """A sandbox in somebody's block: when it ends as it was asked to, the block goes on with a handle that says so."""
    await serve_sandbox(config, home, tenure=tenure, on_pull=on_pull, task_status=task_status)
    await trio.sleep_forever()


@asynccontextmanager
async def open_sandbox(
    name: str, *, home: Home | None = None, keep: bool = False, on_pull: OnPull = ignore, **options: Any
) -> AsyncIterator[Sandbox]:
    """A sandbox for the length of a block: `async with open_sandbox("worker", image="local/base") as sb:`.

    name: 1–128 bytes, letters, digits, '.', '_', '-', starting with a letter or digit; unique in the data folder.
    image: the name of a registry's image, `local/NAME`, the path of an OCI layout, an OCI or Docker archive, a disk
    image (.qcow2, .raw, .vmdk: the guest writes to the file itself) or a folder (which is only read), or a value of
    `Image`. Required, unless there is a snapshot.
    snapshot: the name, digest or path of a Snapshot, or the Snapshot, in the place of an image: the sandbox begins with
    a copy of its disk, on the image that it was made on. from_snapshot: the same.
    cpus: virtual CPUs (1). memory: MiB (512). workdir, user: of programs (the image's, else "/" and root).
    shell: of `shell()` ("/bin/sh"). hostname (the name). env: for every program. pull_policy: when a
    registry is asked for an image ("if-missing"). registry_auth: a RegistryAuth for it (what the machine knows).
    boot_timeout: seconds to the ready state (60). admission_timeout: seconds to wait for room on the host before that,
    0 not at all (60). warm: clone a template where one is or can be made (True); clones of
    one template share the layout of their kernels' address space, which False avoids at the price of a boot.
    listen: path of a Unix socket on which other processes of this user may connect. websocket: a WebSocketAddress on
    which clients that bring its token may. idle_timeout: seconds without open programs and file operations after which
    it drains and stops. max_duration: seconds of life after which it does. labels: for `Sandbox.list`,
    over the image's. entrypoint: what `exec_default` runs, in the place of the image's ENTRYPOINT and CMD. patches:
    changes to its files, from `Patch`, applied in order before anybody can use it. scripts: programs by name, in
    /.msb/scripts and on PATH; a body without a first line `#!…` is for the shell.
    quiet_logs: do not log what programs print. log_level: of the logger "trio_sandbox", what goes to runtime.log: a
    LogLevel (all that the program lets through). home: the data folder (`Home.default()`). keep: at the end of the
    block the sandbox is stopped, with its data written, and stays, for `Sandbox.start` (False: it is killed and
    removed; one whose root is a disk image is stopped first, since the file is the user's). on_pull: called
    with each PullEvent, what happens to the image, before it is ready.

    Entering raises InvalidConfigError (all problems at once), UnsupportedError for a documented option that is not
    built yet, SandboxAlreadyExistsError, HostLimitError, HostNotReadyError, ImageError, StorageError, BootError or
    PatchFailedError; nothing is left then. When the machine crashes, the block is cancelled and SandboxCrashedError
    leaves it. A lone failure leaves bare; a failure of the block and one of the sandbox together leave as an
    ExceptionGroup. Leaving the block, in whatever way, ends the machine before it returns; a cancellation from outside
    kills it, also with `keep`.
    """
    config = SandboxConfig.from_options(name, options)
    has_lasting_disk = keep or config.has_disk_root
    tenure = Tenure.NEW if keep else Tenure.EPHEMERAL
    async with service(_hosted, config, home or Home.default(), tenure, on_pull, name=f"sandbox {name}") as runtime:
        try:
            yield Sandbox(runtime)
        except trio.Cancelled:
            raise
        except BaseException:
            if has_lasting_disk:
                await runtime.stop(STOP_TIMEOUT)  # noqa: ASYNC120 - then the cancellation is what leaves the block
            raise
        if has_lasting_disk:
            await runtime.stop(STOP_TIMEOUT)


__all__ = ["RootFilesystem", "Runtime", "Sandbox", "open_sandbox", "serve_sandbox"]
