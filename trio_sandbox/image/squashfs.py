"""The squashfs of a root file system: where it is in the cache, and whether it can be believed. Sync."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from trio_sandbox.home import Home

FORMAT = 2
"""Of what `rootfs.py` makes from given layers. A change makes the cache build anew."""

_SUPERBLOCK = struct.Struct("<4s24xHH8xQ")
"""Magic, version, and bytes used, of a squashfs 4.0 superblock."""
_ALIGNMENT = 4096
_SUFFIX = f".v{FORMAT}.squashfs"


def squashfs_path(chain_id: str, home: Home) -> Path:
    """Where the root file system made of these layers is, if it was made."""
    return home.rootfs / f"{chain_id.removeprefix('sha256:')}{_SUFFIX}"


def chain_id_of(path: Path) -> str | None:
    """The chain id of the layers that a file in the cache was made of; None for one that this version does not use."""
    return f"sha256:{path.name.removesuffix(_SUFFIX)}" if path.name.endswith(_SUFFIX) else None


def is_sound(path: Path) -> bool:
    """Whether `path` is a squashfs of the length that it claims. Damage inside is the guest's to find."""
    try:
        with path.open("rb") as file:
            magic, major, minor, used = _SUPERBLOCK.unpack(file.read(_SUPERBLOCK.size))
            size = os.fstat(file.fileno()).st_size
    except (OSError, struct.error):
        return False
    return magic == b"hsqs" and (major, minor) == (4, 0) and size == -(-used // _ALIGNMENT) * _ALIGNMENT
