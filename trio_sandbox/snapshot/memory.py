"""Snapshots of sandboxes that run: memory and devices beside the disk, so that programs go on where they were. Written
by sync code, read on Trio.

They are made of the same checkpoint as a fork (`forking.py`), written out: the memory whole, so that nothing of the
template is needed any more.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import SnapshotError
from trio_sandbox.files import anonymous_copy, anonymous_file, copy_part, storage_errors
from trio_sandbox.home import Home
from trio_sandbox.host.ready import HostAssets
from trio_sandbox.image.pin import Pin
from trio_sandbox.snapshot.content import Proceed, digest_of, on
from trio_sandbox.snapshot.create import relied_on
from trio_sandbox.snapshot.description import (
    DISK_FILE,
    KERNEL_FILE,
    MEMORY,
    MEMORY_FILE,
    STATE_FILE,
    Description,
    FileFacts,
    MachineFacts,
)
from trio_sandbox.snapshot.store import Artifact, find, publish
from trio_sandbox.vm.checkpoint import Checkpoint
from trio_sandbox.vm.guest_memory import Pages


def write_snapshot(
    home: Home,
    place: Path,
    source: Mapping[str, Any],
    *,
    labels: Mapping[str, str],
    force: bool,
    proceed: Proceed = on,
) -> Artifact:
    """Write out what `forking.forkable` tells of, which is held meanwhile. proceed: raises when it is called off.

    Raises CheckpointError when it is held no more, StorageError, SnapshotAlreadyExistsError.
    """
    image = Pin.from_plain(source["image"])
    with Checkpoint.opened(source["checkpoint"]) as checkpoint, ExitStack() as stack:
        stack.enter_context(relied_on(home, image.chain_id))
        files: dict[str, int] = {}
        with storage_errors(place.parent):
            for name, descriptor in _parts(checkpoint).items():
                files[name] = anonymous_copy(descriptor, place.parent, proceed)
                stack.callback(os.close, files[name])
            files[MEMORY_FILE] = _memory_of(checkpoint, place.parent, proceed)
            stack.callback(os.close, files[MEMORY_FILE])
            facts = {name: FileFacts(os.fstat(file).st_size, digest_of(file, proceed)) for name, file in files.items()}
        machine = {**checkpoint.facts, **{name: source[name] for name in ("first_session", "qemu_version")}}
        known = {field.name for field in attrs.fields(MachineFacts)}
        description = Description(
            kind=MEMORY,
            created_ns=time.time_ns(),
            source=source["parent"],
            image=image,
            files=facts,
            machine=MachineFacts(**{name: machine[name] for name in known}),
            labels=dict(labels),
        )
        proceed()
        return publish(home, place, description, files, force=force)


def _parts(checkpoint: Checkpoint) -> dict[str, int]:
    parts = {DISK_FILE: checkpoint.upper, STATE_FILE: checkpoint.state}
    return parts if checkpoint.kernel is None else parts | {KERNEL_FILE: checkpoint.kernel}


def _memory_of(checkpoint: Checkpoint, folder: Path, proceed: Proceed) -> int:
    """A copy of the file behind the memory, and over it what the machine has changed."""
    if checkpoint.memory is not None:
        memory = anonymous_copy(checkpoint.memory, folder, proceed)
    else:
        memory = anonymous_file(folder)
    try:
        os.ftruncate(memory, checkpoint.facts["memory_mib"] << 20)
        position = 0
        for start, length in checkpoint.pages.extents():
            proceed()
            copy_part(checkpoint.pages.descriptor, memory, length, position, start)
            position += length
    except BaseException:
        os.close(memory)
        raise
    return memory


async def memory_snapshot(config: SandboxConfig, home: Home) -> tuple[Artifact | None, SandboxConfig]:
    """The snapshot that `snapshot=` names if it is one with memory, and the configuration with what it prescribes.

    Raises SnapshotError for options that it cannot have, and what `find` raises.
    """
    if config.snapshot is None:
        return None, config
    artifact = await trio.to_thread.run_sync(find, home, os.fspath(config.snapshot))
    machine = artifact.description.machine
    if machine is None:
        return None, config
    defaults = attrs.fields_dict(SandboxConfig)
    for name, value in (("cpus", machine.cpus), ("memory", machine.memory_mib)):
        if getattr(config, name) not in (value, defaults[name].default):
            raise SnapshotError(str(artifact.path), f"its machine has {name}={value}; leave that option out")
    if config.patches:
        raise SnapshotError(str(artifact.path), "it goes on where it was: patches cannot be applied before")
    return artifact, attrs.evolve(config, cpus=machine.cpus, memory=machine.memory_mib)


@asynccontextmanager
async def opened_checkpoint(artifact: Artifact, base: int, assets: HostAssets) -> AsyncIterator[Checkpoint]:
    """What a machine goes on from. base: descriptor of the root file system. Raises SnapshotError where this host is
    not one on which it can.
    """
    machine = artifact.description.machine
    assert machine is not None
    here = {
        "acceleration": assets.acceleration.name,
        "arch": os.uname().machine,
        "qemu_version": assets.qemu_version,
    }
    for name, value in here.items():
        if (wanted := getattr(machine, name)) != value:
            raise SnapshotError(
                str(artifact.path), f"its memory needs {name} {wanted}, and this host has {value}; boot from its disk"
            )
    facts = {
        **{name: getattr(machine, name) for name in ("acceleration", "arch", "cpus", "memory_mib", "tsc_khz")},
        "qemu": str(assets.qemu),
        "kernel": str(assets.kernel.image),
    }
    with artifact.opened() as files, ExitStack() as stack:
        pages = Pages.with_room(0)
        stack.callback(pages.close)
        kernel = files.get(KERNEL_FILE)
        if kernel is None:
            facts["initramfs"] = str(assets.initramfs)
        await trio.lowlevel.checkpoint()
        yield Checkpoint(
            facts=facts,
            state=files[STATE_FILE],
            pages=pages,
            base=base,
            upper=files[DISK_FILE],
            memory=files[MEMORY_FILE],
            kernel=kernel,
        )
