"""Sandboxes that do not run, without machines: their rows, notes and disks."""

from __future__ import annotations

import json
import os
from pathlib import Path

from trio_sandbox.config import SandboxConfig
from trio_sandbox.home import Home
from trio_sandbox.image.oci import ImageConfig
from trio_sandbox.image.pin import NOTE, Pin
from trio_sandbox.lifecycle import State
from trio_sandbox.snapshot.content import GRANULE
from trio_sandbox.state.places import disk_of, folder_of, store_of
from trio_sandbox.state.rows import SandboxRow

CHAIN = "sha256:" + "c" * 64
DISK_SIZE = 1 << 30
PIECES = {0: b"first", 70_000: os.urandom(3 * GRANULE), DISK_SIZE - 5: b"last!"}
"""What is on the disk of a stopped sandbox, by offset; the rest are holes."""
PIN = Pin("local/base", CHAIN, "sha256:" + "d" * 64, ImageConfig(env=("A=1",), cmd=("sh",), labels={"x": "y"}))


def stopped(home: Home, name: str = "one", *, image: str = "local/base", state: State = State.STOPPED) -> Path:
    """Have a sandbox in the store that stays and does not run; its disk."""
    config = SandboxConfig(name=name, image=image)
    store_of(home).add(SandboxRow(name, config.to_json(), state, created_ns=1, updated_ns=1))
    home.folder("sandboxes", name)
    (folder_of(home, name) / NOTE).write_text(json.dumps(PIN.to_plain()))
    write_disk(disk_of(home, name))
    return disk_of(home, name)


def write_disk(path: Path, pieces: dict[int, bytes] = PIECES, size: int = DISK_SIZE) -> None:
    """A sparse file."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)


def holds(path: Path) -> bool:
    """Whether a file is the disk of a stopped sandbox."""
    with path.open("rb") as file:
        for offset, data in PIECES.items():
            file.seek(offset)
            if file.read(len(data)) != data:
                return False
    return path.stat().st_size == DISK_SIZE


def files_in(folder: Path) -> list[str]:
    """All below a folder, folders too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
