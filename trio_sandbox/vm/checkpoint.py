"""A machine as it was at one moment: its memory, the state of its devices, its disks. Open files that have no name, so
nothing is left of it when whoever holds it is gone.

Another process of the same user opens the files through /proc while their holder lives. What a checkpoint does not
hold is on the machine that it was taken on: QEMU and, for a machine that was booted cold, its kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs

from trio_sandbox.errors import CheckpointError
from trio_sandbox.files import descriptor_path
from trio_sandbox.vm.command import Disk, MachineSpec, Memory, Restore
from trio_sandbox.vm.guest_memory import Pages

FACTS = ("acceleration", "tsc_khz", "cpus", "memory_mib", "arch")
"""Of a machine's spec, as they are."""
PATHS = ("qemu", "kernel", "initramfs")
_READ_ONLY = frozenset({"state", "base"})


@attrs.frozen
class Checkpoint:
    """The files are the caller's to close, all at once. upper: the writable disk. base: the read-only one.

    state: of the devices. pages: what the memory has beyond the file behind it. memory: that file, if there is one.
    kernel: a stub of a kernel that the machine was given, if it was.
    """

    facts: Mapping[str, Any]
    state: int
    pages: Pages
    base: int
    upper: int
    memory: int | None = None
    kernel: int | None = None
    stood_still: float = 0.0
    """Seconds that the machine stood still for it."""

    @classmethod
    def of(cls, spec: MachineSpec, state: int, pages: Pages, upper: int, stood_still: float) -> Checkpoint:
        """Of the machine `spec`, whose own files are duplicated."""
        with ExitStack() as stack:

            def kept(descriptor: int | None) -> int | None:
                if descriptor is None:
                    return None
                copy = os.dup(descriptor)
                stack.callback(os.close, copy)
                return copy

            base = kept(spec.disks[0].descriptor)
            assert base is not None
            memory = kept(spec.memory.descriptor if spec.memory is not None else None)
            kernel = kept(spec.kernel_descriptor)
            stack.pop_all()
        facts = {name: getattr(spec, name) for name in FACTS}
        facts |= {name: os.fspath(value) for name in PATHS if (value := getattr(spec, name)) is not None}
        return cls(facts, state, pages, base, upper, memory, kernel, stood_still)

    @property
    def files(self) -> dict[str, int]:
        """All descriptors by name."""
        found = {"state": self.state, "pages": self.pages.descriptor, "base": self.base, "upper": self.upper}
        optional = {"memory": self.memory, "kernel": self.kernel}
        return found | {name: descriptor for name, descriptor in optional.items() if descriptor is not None}

    def close(self) -> None:
        """Let go of all files."""
        for descriptor in self.files.values():
            os.close(descriptor)

    def to_plain(self) -> dict[str, Any]:
        """What another process opens it by, as long as this one holds it."""
        return {
            "pid": os.getpid(),
            "facts": dict(self.facts),
            "files": {name: [descriptor, *_identity(descriptor)] for name, descriptor in self.files.items()},
            "pages": [self.pages.size, self.pages.count],
        }

    @classmethod
    @contextmanager
    def opened(cls, plain: Mapping[str, Any]) -> Iterator[Checkpoint]:
        """The checkpoint that another process holds, for the length of the block.

        Raises CheckpointError when it holds it no more.
        """
        with ExitStack() as stack:
            files: dict[str, int] = {}
            for name, (descriptor, *identity) in plain["files"].items():
                access = os.O_RDONLY if name in _READ_ONLY else os.O_RDWR
                try:
                    files[name] = os.open(f"/proc/{plain['pid']}/fd/{descriptor}", access | os.O_CLOEXEC)
                except OSError as error:
                    raise CheckpointError("its copy is held no more") from error
                stack.callback(os.close, files[name])
                if _identity(files[name]) != identity:  # its number is another process's by now
                    raise CheckpointError("its copy is held no more")
            pages = Pages(files.pop("pages"), *plain["pages"])
            yield cls(facts=plain["facts"], pages=pages, **files)

    def spec(self, console: int, monitor: int, agent: int, name: str, upper: int, *, durable: bool) -> MachineSpec:
        """The machine that goes on from here, on these sockets, with `upper` as its own copy of the writable disk."""
        known: dict[str, Any] = {key: self.facts[key] for key in FACTS}
        kernel, initramfs = Path(self.facts["kernel"]), self.facts.get("initramfs")
        if self.kernel is not None:
            kernel = Path(descriptor_path(self.kernel))
        return MachineSpec(
            qemu=Path(self.facts["qemu"]),
            kernel=kernel,
            initramfs=Path(initramfs) if initramfs is not None else None,
            console=console,
            monitor=monitor,
            agent=agent,
            disks=(
                Disk("base", self.base, readonly=True),
                Disk("upper", upper, readonly=False, durable=durable),
            ),
            memory=Memory(self.memory, shared=False) if self.memory is not None else None,
            restore=Restore(self.state, self.pages, bare=True),
            kernel_descriptor=self.kernel,
            name=name,
            **known,
        )


def _identity(descriptor: int) -> list[int]:
    found = os.fstat(descriptor)
    return [found.st_dev, found.st_ino]
