"""Machines that are ready to run programs: booted cold, or cloned from a warm template. Both give the same sandbox.

`serve_machine` owns one machine and its agent link. A warm start that fails for whatever reason discards its template
and falls back to a cold boot; a template is an optimisation and never a requirement.

A template is the memory and device state of a machine that has booted, mounted its root and read what a first program
needs. It never ran a program and has no identity; each clone gets the wall clock, fresh entropy, a host name and a
machine id before anything else.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio

from trio_sandbox.binaries import host_program_path
from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import BootError, SandboxError, StorageError
from trio_sandbox.exclusive import exclusively
from trio_sandbox.files import anonymous_copy, anonymous_file, closing_descriptor, descriptor_path, storage_errors
from trio_sandbox.home import Home
from trio_sandbox.host.facts import identity
from trio_sandbox.host.ready import HostAssets
from trio_sandbox.image.rootfs import RootFilesystem
from trio_sandbox.image.upper import create_upper
from trio_sandbox.relay.frames import PROTOCOL_VERSION, FrameType
from trio_sandbox.relay.link import AgentLink, LinkLost
from trio_sandbox.relay.messages import (
    BootFailed,
    Clock,
    Configure,
    Hello,
    Identify,
)
from trio_sandbox.service import service
from trio_sandbox.vm.command import Disk, MachineSpec, Memory, Port, Restore, qemu_argv
from trio_sandbox.vm.console import Record
from trio_sandbox.vm.running import RunningMachine
from trio_sandbox.vm.stub import kernel_stub
from trio_sandbox.vm.supervise import Machine, Sockets, supervise_vmm
from trio_sandbox.vm.templates import OpenTemplate, TemplateStore
from trio_sandbox.warm_files import WARM_FILES

log = logging.getLogger("trio_sandbox.machine")

SIGN_TIMEOUT = 20.0
"""Seconds for the guest's first sign. A cold boot under software emulation takes 2.5 s; one that hangs never ends."""
EXIT_TIMEOUT = 5.0
"""Seconds that an agent stream which closed waits for the VMM to end too, before the agent alone counts as lost."""
CLONE_TIMEOUT = 5.0
"""Seconds for a clone to be ready. 50 ms is usual; the cold path is never much slower than waiting longer."""
ENTROPY_SIZE = 64
BASE, UPPER, DISK = "base", "upper", "root"
"""Serials of the disks."""
DRIVERS = {"ext2": "ext4", "ext3": "ext4"}
"""File systems that the guest's kernel serves by the driver of another one."""
SPARE_ROOM = 64 << 20
"""Bytes of disk that making a template leaves free beyond the guest's memory."""
PLACEHOLDER_SIZE = 1 << 40
"""Bytes of a blank template's disks: sparse, and larger than any disk that a clone will have."""


@attrs.frozen
class MachinePlan:
    """What every try to make one sandbox's machine has in common.

    rootfs and base: the root file system, and its descriptor. upper: descriptor of a writable disk that the sandbox
    brings, None for a new one. disk: a disk image that is the root, in the place of them all. Whoever made the plan
    closes the descriptors. mark: called with the name of each stage as it is reached. ports: more
    virtio-serial ports, for a cold boot alone, since a template has none.
    """

    config: SandboxConfig
    home: Home
    assets: HostAssets
    rootfs: RootFilesystem | None = None
    base: int | None = None
    upper: int | None = None
    disk: Disk | None = None
    durable: bool = False
    """Whether the guest's flushes reach the host's disk: for a disk that outlives the machine."""
    name_disk: Callable[[int], None] = attrs.field(default=lambda descriptor: None, eq=False)
    """Called with the descriptor of a disk that was made new, before the machine writes to it."""
    mark: Callable[[str], None] = attrs.field(default=lambda stage: None, eq=False)
    ports: tuple[Port, ...] = ()
    record: Record | None = attrs.field(default=None, eq=False)
    """Is shown what the guest prints on its console."""

    @property
    def blank(self) -> bool:
        """Whether the template for this machine is one with nothing mounted: it has disks of its own, or stands on a
        folder, for which a template would hardly be used twice.
        """
        return self.upper is not None or (self.rootfs is not None and self.rootfs.is_folder)

    @property
    def chain_id(self) -> str:
        """Of the layers that it stands on; "" for a disk image."""
        return self.rootfs.chain_id if self.rootfs is not None else ""

    @property
    def upper_mib(self) -> int:
        """MiB of a writable disk that is made new."""
        return self.config.root.upper_size_mib

    def disks(self, upper: int | None) -> tuple[Disk, ...]:
        """What the guest finds its root on; upper: its writable disk, if it has one."""
        if self.disk is not None:
            return (self.disk,)
        assert self.base is not None and upper is not None
        return (Disk(BASE, self.base, readonly=True), Disk(UPPER, upper, readonly=False, durable=self.durable))

    def spec(self, sockets: Sockets, upper: int | None, memory: Memory | None = None) -> MachineSpec:
        """The machine that boots, on these sockets and with this writable disk."""
        return MachineSpec(
            qemu=self.assets.qemu,
            kernel=self.assets.kernel.image,
            initramfs=self.assets.initramfs,
            acceleration=self.assets.acceleration.name,
            tsc_khz=self.assets.acceleration.tsc_khz,
            cpus=self.config.cpus,
            memory_mib=self.config.memory,
            console=sockets.console,
            monitor=sockets.monitor,
            agent=sockets.agent,
            disks=self.disks(upper),
            ports=self.ports,
            memory=memory,
            name=self.config.name,
            arch=os.uname().machine,
        )

    def clone_spec(self, sockets: Sockets, upper: int, template: OpenTemplate) -> MachineSpec:
        """The same machine as a clone of `template`."""
        spec = self.spec(sockets, upper, Memory(template.ram, shared=False))
        spec = attrs.evolve(spec, restore=Restore(template.state))
        if template.kernel is None:
            return spec
        stub = Path(descriptor_path(template.kernel))
        return attrs.evolve(spec, kernel=stub, kernel_descriptor=template.kernel, initramfs=None)

    @property
    def template_key(self) -> str:
        """A digest of all that a template depends on: everything that shapes the machine, and what is in it."""
        fixed = attrs.evolve(self, config=attrs.evolve(self.config, name="template"), base=3, durable=False)
        argv = qemu_argv(fixed.spec(Sockets(0, 1, 2), 4, Memory(5, shared=True)))
        inside = ("blank",) if self.rootfs is None or self.blank else (self.rootfs.chain_id, self.upper_mib, WARM_FILES)
        depends_on = (
            argv,
            self.assets.qemu_version,
            identity(self.assets.qemu),
            identity(self.assets.kernel.image),
            inside,
        )
        return hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()[:40]


async def serve_machine(
    plan: MachinePlan, *, task_status: trio.TaskStatus[tuple[Machine, AgentLink]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Make the machine of `plan` and own it. Reports `started((machine, link))` when programs can run in it.

    Raises BootError, HostNotReadyError, StorageError, RemoteProtocolError. Cancellation: the machine is killed and
    reaped.
    """
    if plan.config.warm and not plan.ports and plan.disk is None:
        async with _template(plan) as template:
            if template is not None:
                try:
                    await _serve_clone(plan, template, task_status)
                except _CloneFailed as failure:
                    log.warning("a clone did not start (%s): its template is discarded", failure.__cause__)
                    _store(plan.home).discard(template.key)
    await _serve_cold(plan, task_status)


class _CloneFailed(Exception):
    """A warm start failed before it was ready; the reason is its cause."""


async def _serve_cold(plan: MachinePlan, task_status: trio.TaskStatus[tuple[Machine, AgentLink]]) -> None:
    with ExitStack() as stack:
        upper = plan.upper
        if upper is None and plan.disk is None:
            upper = stack.enter_context(closing_descriptor(await create_upper(plan.home, plan.upper_mib)))
            plan.name_disk(upper)
        plan.mark("disks")
        async with _booted(plan, lambda sockets: plan.spec(sockets, upper)) as (machine, link):
            plan.mark("hello")
            await configure(plan.config, machine, link, configuration(plan.config))
            task_status.started((machine, link))
            await trio.sleep_forever()


@asynccontextmanager
async def _booted(
    plan: MachinePlan, build: Callable[[Sockets], MachineSpec]
) -> AsyncIterator[tuple[Machine, AgentLink]]:
    """A machine whose kernel boots, up to the agent's first sign."""
    sign_timeout = min(SIGN_TIMEOUT, plan.config.boot_timeout / 2)
    async with service(supervise_vmm, build, host_program_path(), plan.record, sign_timeout) as machine:
        link = AgentLink(machine.agent)
        async with service(link.serve, name="agent link"):
            yield machine, link


async def _serve_clone(
    plan: MachinePlan, template: OpenTemplate, task_status: trio.TaskStatus[tuple[Machine, AgentLink]]
) -> None:
    started = False
    try:
        async with _disk_of_clone(plan, template) as upper:
            plan.mark("disks")
            build = lambda sockets: plan.clone_spec(sockets, upper, template)  # noqa: E731 - a builder in passing
            async with service(supervise_vmm, build, host_program_path(), plan.record, CLONE_TIMEOUT) as machine:
                plan.mark("spawned")
                link = AgentLink(machine.agent, greeted=True)
                async with service(link.serve, name="agent link"):
                    who = configuration(plan.config) if plan.blank else identification(plan.config)
                    await introduce(machine, link, who)
                    started = True
                    task_status.started((machine, link))
                    await trio.sleep_forever()
    except (SandboxError, LinkLost, trio.TooSlowError) as error:
        if started or isinstance(error, StorageError):
            raise
        raise _CloneFailed from error


@asynccontextmanager
async def _disk_of_clone(plan: MachinePlan, template: OpenTemplate) -> AsyncIterator[int]:
    """The writable disk: the sandbox's own, a new one, or a copy of the template's as its memory knows it."""
    if plan.upper is not None:
        yield plan.upper
        return
    if template.upper is None:
        made = await create_upper(plan.home, plan.upper_mib)
    else:
        made = anonymous_copy(template.upper, plan.home.scratch)
    with closing_descriptor(made) as upper:
        plan.name_disk(upper)
        yield upper


async def introduce(machine: Machine, link: AgentLink, who: Identify | Configure) -> None:
    """Tell a clone who it is, and a blank one what its disks are, and wait until it is ready.

    Raises BootError, LinkLost, trio.TooSlowError.
    """
    link.send(who)
    with trio.fail_after(CLONE_TIMEOUT):
        answer = (await link.machine_message(FrameType.READY, FrameType.BOOT_FAILED)).message
    _raise_if_failed(answer, machine)
    link.send(Clock(time.time_ns()))  # what it was told first is as old as its start


def _raise_if_failed(answer: object, machine: RunningMachine) -> None:
    if isinstance(answer, BootFailed):
        raise BootError(answer.stage, f"{answer.message} ({os.strerror(answer.errno)})", machine.console.tail())


async def configure(config: SandboxConfig, machine: RunningMachine, link: AgentLink, settings: Configure) -> None:
    """Say what the machine is and wait until its root is mounted. Raises BootError, RemoteProtocolError."""
    try:
        with trio.fail_after(config.boot_timeout):
            hello = (await link.machine_message(FrameType.HELLO)).message
            assert isinstance(hello, Hello)
            if PROTOCOL_VERSION not in hello.versions:
                raise BootError("agent", f"the agent speaks versions {hello.versions}, this host {PROTOCOL_VERSION}")
            link.send(settings)
            answer = (await link.machine_message(FrameType.READY, FrameType.BOOT_FAILED)).message
    except trio.TooSlowError:
        raise BootError("agent", f"not ready within {config.boot_timeout:g} s", machine.console.tail()) from None
    except LinkLost:
        with trio.move_on_after(EXIT_TIMEOUT, shield=True):
            await machine.exited.wait()
        raise BootError("agent", "the machine ended before it was ready", machine.console.tail()) from None
    _raise_if_failed(answer, machine)


def identification(config: SandboxConfig) -> Identify:
    """What a clone is told."""
    return Identify(
        time_ns=time.time_ns(),
        entropy=secrets.token_bytes(ENTROPY_SIZE),
        hostname=config.effective_hostname,
        machine_id=secrets.token_hex(16),
    )


def configuration(config: SandboxConfig, *, template: bool = False) -> Configure:
    """What a machine of this configuration is told."""
    who = identification(config)
    return Configure(
        version=PROTOCOL_VERSION,
        time_ns=who.time_ns,
        entropy=who.entropy,
        hostname=who.hostname,
        machine_id=who.machine_id,
        **_root(config),
        template=template,
        warm=WARM_FILES if template else (),
    )


def _root(config: SandboxConfig) -> dict[str, str]:
    """Where the guest finds its root."""
    if not config.has_disk_root:
        return {"base": BASE, "upper": UPPER}
    source = config.root
    return {"disk": DISK, "fstype": DRIVERS.get(source.fstype or "", source.fstype or "")}


# -- templates


def _store(home: Home) -> TemplateStore:
    return TemplateStore(home.folder("templates"))


@asynccontextmanager
async def _template(plan: MachinePlan) -> AsyncIterator[OpenTemplate | None]:
    """The template for `plan`, made now if there is none; None when none can be made."""
    store, key = _store(plan.home), plan.template_key
    with store.opened(key) as known:
        if known is not None:
            yield known
            return
    try:
        async with exclusively(plan.home, f"template {key}"):
            with store.opened(key) as known:
                if known is None:
                    await build_template(plan, key)
    except (SandboxError, LinkLost, trio.TooSlowError) as error:
        log.warning("no warm template could be made, so this sandbox boots cold: %s", error)
    plan.mark("template")
    with store.opened(key) as made:
        yield made


async def build_template(plan: MachinePlan, key: str) -> None:
    """Boot a machine and save it under `key`: a blank one after its HELLO, else a ready one without an identity.

    Raises what a boot raises, and StorageError. Cancellation: the machine is killed and nothing is left.
    """
    store, folder = _store(plan.home), plan.home.folder("templates")
    plan = attrs.evolve(plan, config=attrs.evolve(plan.config, name="template"), mark=lambda stage: None, record=None)
    _require_room(folder, (plan.config.memory << 20) + SPARE_ROOM)
    with ExitStack() as stack:
        files = {part: stack.enter_context(closing_descriptor(anonymous_file(folder))) for part in ("ram", "state")}
        if plan.blank:
            # What a clone finds behind these slots is smaller: the guest knows only their size, and has read nothing.
            base, upper = (stack.enter_context(closing_descriptor(_placeholder(folder))) for _ in range(2))
            plan = attrs.evolve(plan, base=base, upper=upper)
        else:
            upper = stack.enter_context(closing_descriptor(await create_upper(plan.home, plan.upper_mib)))
            files["upper"] = upper
        memory = Memory(files["ram"], shared=True)
        async with _booted(plan, lambda sockets: plan.spec(sockets, upper, memory)) as (machine, link):
            if plan.blank:
                with trio.fail_after(plan.config.boot_timeout):
                    await link.machine_message(FrameType.HELLO)
            else:
                await configure(plan.config, machine, link, configuration(plan.config, template=True))
            await machine.qmp.save(files["state"])
        if (stub := kernel_stub(plan.assets.kernel.image.read_bytes())) is not None:
            files["kernel"] = stack.enter_context(closing_descriptor(anonymous_file(folder)))
            with storage_errors(folder):
                os.write(files["kernel"], stub)
        # QEMU is gone: its memory file and its disk are as the saved machine remembers them.
        store.publish(key, files)
        store.trim(keep=key)


def _require_room(folder: Path, size: int) -> None:
    """Raise StorageError at once rather than after a boot: a guest whose memory file cannot grow dies of SIGBUS."""
    found = os.statvfs(folder)
    if found.f_bavail * found.f_frsize < size:
        raise StorageError(str(folder), errno.ENOSPC, f"less than {size >> 20} MiB are free")


def _placeholder(folder: Path) -> int:
    descriptor = anonymous_file(folder)
    os.ftruncate(descriptor, PLACEHOLDER_SIZE)
    return descriptor
