"""The initial RAM file system of a guest: the agent as /init and the modules that it loads, in order.

Built once for each kernel and agent, and named by a digest of what it is made from, so a rebuilt agent or another
kernel gives another file and nothing ever has to be invalidated. Not compressed: the guest would pay for that at
every boot.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from trio_sandbox.binaries import agent_path
from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.files import publish_bytes
from trio_sandbox.home import Home
from trio_sandbox.host import cpio
from trio_sandbox.host.kernel import Kernel
from trio_sandbox.host.modules import (
    DISK_ROOTS,
    WANTED,
    WELCOME,
    ModuleIndex,
    load_order,
    normal_name,
    read_index,
    read_module,
)

FORMAT = 1
"""Counted up when the same inputs shall give other contents."""

FOLDERS = ("dev", "proc", "sys", "run", "tmp", "etc", "mnt", "modules")

KEPT = 4
"""How many files stay in the cache; older ones go when a new one is built."""


def read_agent() -> bytes:
    """The guest agent's bytes. Raises HostNotReadyError when it was never built."""
    path = agent_path()
    try:
        return path.read_bytes()
    except OSError as error:
        raise HostNotReadyError(
            "guest agent", f"{path} cannot be read ({error.strerror})", "install the package again"
        ) from error


def initramfs_path(kernel: Kernel, home: Home, *, disk_root: bool = False) -> Path:
    """Where the file for this kernel and the present agent is, or would be. disk_root: as for `build_initramfs`.

    Raises HostNotReadyError when the agent was never built.
    """
    index = os.stat(kernel.modules / "modules.dep")
    made_from = (FORMAT, kernel.release, kernel.package, index.st_size, index.st_mtime_ns, WANTED, WELCOME, FOLDERS)
    digest = hashlib.sha256(repr((*made_from, DISK_ROOTS) if disk_root else made_from).encode())
    digest.update(read_agent())
    return home.initramfs / f"{digest.hexdigest()[:32]}.cpio"


async def build_initramfs(kernel: Kernel, home: Home, *, disk_root: bool = False) -> Path:
    """The file for this kernel and the present agent, built if it is not there.

    disk_root: with the modules that the root of a disk image may need; other machines need not carry their 5 MB.
    Raises HostNotReadyError when the agent or a module is missing or damaged, StorageError when the disk refuses.
    Cancellation: no file, or the whole one.
    """
    path = initramfs_path(kernel, home, disk_root=disk_root)
    if not path.is_file():
        index = read_index(kernel.modules)
        always = load_order(index, WANTED, WELCOME)
        modules = await _modules(kernel, "modules", always)
        for name in DISK_ROOTS if disk_root else ():
            modules.append(cpio.folder(f"modules/{name}"))
            modules += await _modules(kernel, f"modules/{name}", _further(index, name, always))
        publish_bytes(path, contents(read_agent(), modules))
        _forget_older(home.initramfs)
    return path


def _further(index: ModuleIndex, name: str, loaded: Sequence[str]) -> list[str]:
    """What a guest loads for `name` beyond what it has `loaded`."""
    return [module for module in load_order(index, (), (name,)) if module not in loaded]


async def _modules(kernel: Kernel, folder: str, modules: Sequence[str]) -> list[cpio.Entry]:
    return [
        cpio.file(f"{folder}/{number:02d}-{normal_name(module)}.ko", await read_module(kernel.modules / module))
        for number, module in enumerate(modules)
    ]


def contents(agent: bytes, modules: list[cpio.Entry]) -> bytes:
    """The archive: folders to mount on, the console for the agent's first words, the agent, the modules."""
    return cpio.archive(
        [
            *(cpio.folder(name) for name in FOLDERS),
            cpio.character_device("dev/console", 5, 1),
            cpio.file("init", agent, 0o755),
            *modules,
        ]
    )


def _forget_older(folder: Path) -> None:
    newest_first = sorted(folder.glob("*.cpio"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in newest_first[KEPT:]:
        path.unlink(missing_ok=True)
