"""The initial RAM file system of a guest: the agent as /init and the modules that it loads, in order.

Built once for each kernel and agent, and named by a digest of what it is made from, so a rebuilt agent or another
kernel gives another file and nothing ever has to be invalidated. Not compressed: the guest would pay for that at
every boot.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from trio_sandbox.binaries import agent_path
from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.files import publish_bytes
from trio_sandbox.home import Home
from trio_sandbox.host import cpio
from trio_sandbox.host.kernel import Kernel
from trio_sandbox.host.modules import WANTED, WELCOME, load_order, normal_name, read_index, read_module

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


def initramfs_path(kernel: Kernel, home: Home) -> Path:
    """Where the file for this kernel and the present agent is, or would be.

    Raises HostNotReadyError when the agent was never built.
    """
    index = os.stat(kernel.modules / "modules.dep")
    made_from = (FORMAT, kernel.release, kernel.package, index.st_size, index.st_mtime_ns, WANTED, WELCOME, FOLDERS)
    digest = hashlib.sha256(repr(made_from).encode())
    digest.update(read_agent())
    return home.initramfs / f"{digest.hexdigest()[:32]}.cpio"


async def build_initramfs(kernel: Kernel, home: Home) -> Path:
    """The file for this kernel and the present agent, built if it is not there.

    Raises HostNotReadyError when the agent or a module is missing or damaged, StorageError when the disk refuses.
    Cancellation: no file, or the whole one.
    """
    path = initramfs_path(kernel, home)
    if not path.is_file():
        index = read_index(kernel.modules)
        modules = []
        for number, module in enumerate(load_order(index, WANTED, WELCOME)):
            name = f"modules/{number:02d}-{normal_name(module)}.ko"
            modules.append(cpio.file(name, await read_module(kernel.modules / module)))
        publish_bytes(path, contents(read_agent(), modules))
        _forget_older(home.initramfs)
    return path


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
