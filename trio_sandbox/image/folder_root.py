"""From a folder of the host to the read-only root file system that a sandbox boots from, packed once.

The squashfs is cached under a digest of the folder's metadata: names, sizes, times, inodes. So a folder that nobody
wrote to costs a walk, and one that somebody did is packed anew. The last few are kept, and those that sandboxes which
stay stand on.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

import trio

from trio_sandbox.errors import ImageNotFoundError, InvalidImageError
from trio_sandbox.exclusive import exclusively
from trio_sandbox.files import publish_bytes, storage_errors
from trio_sandbox.home import Home
from trio_sandbox.image.cache.collect import pins
from trio_sandbox.image.faults import ImageFault, blame
from trio_sandbox.image.folder import FolderChanged, FolderFacts, look, open_folder, write_folder
from trio_sandbox.image.limits import DEFAULT_LIMITS, Limits
from trio_sandbox.image.oci import ImageConfig
from trio_sandbox.image.progress import Meter, Progress
from trio_sandbox.image.rootfs import RootFilesystem, build_squashfs
from trio_sandbox.image.sink import Sink
from trio_sandbox.image.squashfs import is_sound, squashfs_path
from trio_sandbox.pull_event import OnPull, PullEvent, ignore

KEPT = 4
"""Packed folders that no sandbox stands on; the least recently used go first."""
TRIES = 3
"""How often a folder is read that changes meanwhile."""
YOUNG = 60.0
"""Seconds since its last use within which a packed folder stays: somebody is about to boot from it."""
SETTLE = 0.05
"""Seconds for which nothing must have changed before the folder's metadata can be believed: a file that is written to
twice within a tick of the kernel's clock looks the same after both.
"""


async def prepare_folder(
    reference: str,
    path: Path,
    home: Home,
    *,
    progress: Progress | None = None,
    on_pull: OnPull = ignore,
    limits: Limits = DEFAULT_LIMITS,
) -> RootFilesystem:
    """The root file system that the folder `path` holds, as it is now. reference: how the user named it.

    The folder is not written to. Raises ImageNotFoundError, InvalidImageError, StorageError, HostNotReadyError.
    Cancellation leaves nothing.
    """
    on_pull(PullEvent("resolving", reference=reference))
    with blame(reference):
        root = _open(reference, path)
        try:
            chain_id = await _packed(root, home, progress, on_pull, limits)
        finally:
            os.close(root)
    await trio.to_thread.run_sync(_note_and_prune, home, chain_id)
    on_pull(PullEvent("complete", reference=reference, layer_count=1))
    return RootFilesystem(reference, squashfs_path(chain_id, home), chain_id, "", ImageConfig(), is_folder=True)


def _open(reference: str, path: Path) -> int:
    try:
        return open_folder(path)
    except FileNotFoundError:
        raise ImageNotFoundError(reference, "there is no such folder") from None
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise InvalidImageError(reference, "it is not a folder") from None
        raise InvalidImageError(reference, f"it cannot be opened: {error.strerror}") from error


async def _packed(root: int, home: Home, progress: Progress | None, on_pull: OnPull, limits: Limits) -> str:
    """The digest of the folder, whose squashfs is there."""
    for _ in range(TRIES):
        try:
            facts = await _settled(root, limits)
            path = squashfs_path(facts.digest, home)
            if not is_sound(path):
                async with exclusively(home, path.name):
                    if not is_sound(path):
                        await _pack(root, facts, path, progress, on_pull, limits)
            return facts.digest
        except FolderChanged:
            continue
    raise ImageFault(f"it was written to each of the {TRIES} times that it was read; wait until nobody does")


async def _settled(root: int, limits: Limits) -> FolderFacts:
    """What the folder is, when its youngest file is old enough."""
    facts = await trio.to_thread.run_sync(look, root, limits, Meter())
    age = time.time() - facts.newest_ns / 1e9
    if 0 <= age < SETTLE:
        await trio.sleep(SETTLE - age)
        facts = await trio.to_thread.run_sync(look, root, limits, Meter())
    return facts


async def _pack(
    root: int, facts: FolderFacts, path: Path, progress: Progress | None, on_pull: OnPull, limits: Limits
) -> None:
    """Pack the folder and see that it is still what it was. Raises FolderChanged."""
    on_pull(PullEvent("stitch_merging_trees", layer_count=1))
    meter = Meter(progress)

    def write(sink: Sink) -> None:
        meter.begin("reading the folder", None)
        write_folder(root, sink, limits, meter)
        if look(root, limits, meter).digest != facts.digest:
            raise FolderChanged

    await build_squashfs(write, path)
    on_pull(PullEvent("stitch_complete"))


def _note_and_prune(home: Home, chain_id: str) -> None:
    """Note the use of a packed folder, and remove those that are used least."""
    notes = home.folder("cache", "folders")
    with storage_errors(notes):
        publish_bytes(notes / chain_id.removeprefix("sha256:"), b"")
        if len(found := list(notes.iterdir())) <= KEPT:
            return
        kept = {pinned.removeprefix("sha256:") for pinned in pins(home)}
        loose = sorted((note for note in found if note.name not in kept), key=_last_use, reverse=True)
        for note in loose[KEPT:]:
            if _last_use(note) < time.time() - YOUNG:
                squashfs_path(note.name, home).unlink(missing_ok=True)
                note.unlink(missing_ok=True)


def _last_use(note: Path) -> float:
    with suppress(FileNotFoundError):
        return note.stat().st_mtime
    return 0.0
