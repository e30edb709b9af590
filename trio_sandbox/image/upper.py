"""The writable layer of a sandbox: a sparse ext4 file without a name, copied from a prototype formatted once."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from trio_sandbox.errors import HostNotReadyError, InvalidConfigError
from trio_sandbox.files import anonymous_copy, anonymous_file, descriptor_path, publish, storage_errors
from trio_sandbox.home import Home
from trio_sandbox.image_source import UPPER_SIZE_MAX_MIB, UPPER_SIZE_MIB, UPPER_SIZE_MIN_MIB
from trio_sandbox.tools import run_tool

FORMAT = 1
"""Of the prototype. A change makes new ones."""

FORMATTER = "mke2fs"
SYSTEM_FOLDERS = "/usr/sbin:/sbin"
"""Where the formatter is, and what Debian leaves out of an ordinary user's PATH."""

_MIB = 1 << 20
_MAGIC_OFFSET, _MAGIC = 1024 + 56, b"\x53\xef"


async def create_upper(home: Home, size_mib: int = UPPER_SIZE_MIB) -> int:
    """A new empty ext4 file of `size_mib` MiB, in about a millisecond. The caller closes the descriptor.

    The file has no name: it is gone when the last descriptor is closed, whoever died. Raises InvalidConfigError,
    StorageError, HostNotReadyError. Cancellation leaves nothing.
    """
    if not UPPER_SIZE_MIN_MIB <= size_mib <= UPPER_SIZE_MAX_MIB:
        bounds = f"{UPPER_SIZE_MIN_MIB} and {UPPER_SIZE_MAX_MIB}"
        raise InvalidConfigError([f"upper_size_mib: {size_mib} MiB is not between {bounds}"])
    prototype = home.folder("prototypes") / f"ext4-{size_mib}-{FORMAT}.img"
    if not _is_sound(prototype, size_mib):
        await _make_prototype(prototype, size_mib)
    return await trio.to_thread.run_sync(_copy, prototype, home.scratch)


def _is_sound(prototype: Path, size_mib: int) -> bool:
    try:
        with prototype.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return size == size_mib * _MIB and os.pread(file.fileno(), 2, _MAGIC_OFFSET) == _MAGIC
    except OSError:
        return False


def _copy(prototype: Path, folder: Path) -> int:
    with storage_errors(folder), prototype.open("rb") as source:
        return anonymous_copy(source.fileno(), folder)


async def _make_prototype(prototype: Path, size_mib: int) -> None:
    """Format a file without a name and publish it. Two that do so at once make the same thing, and one wins."""
    target = anonymous_file(prototype.parent)
    try:
        with storage_errors(prototype.parent):
            os.ftruncate(target, size_mib * _MIB)
        try:
            await run_tool(
                [FORMATTER, *_format_options(size_mib), descriptor_path(target)],
                env={"PATH": f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_FOLDERS}", "LC_ALL": "C"},
                pass_fds=[target],
            )
        except HostNotReadyError as error:
            raise HostNotReadyError(FORMATTER, "the program is not installed", "install e2fsprogs") from error
        await trio.to_thread.run_sync(publish, target, prototype)
    finally:
        os.close(target)


def _format_options(size_mib: int) -> list[str]:
    """No reserve for root, no room to grow, a small journal (it is what makes a killed machine's files whole).

    The tables of a sparse file read as zeros already; `lazy_itable_init` keeps mke2fs from writing them.
    """
    journal_mib = 4 if size_mib < 256 else 16
    return [
        *("-q", "-F", "-t", "ext4", "-m", "0", "-b", "4096"),
        *("-O", "^resize_inode"),
        *("-J", f"size={journal_mib}"),
        *("-E", "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1"),
    ]
