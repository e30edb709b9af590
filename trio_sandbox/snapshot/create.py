"""A snapshot of the disk of a sandbox that does not run. Sync."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import InvalidConfigError, SandboxStillRunningError, UnsupportedError
from trio_sandbox.files import anonymous_copy, storage_errors
from trio_sandbox.home import Home
from trio_sandbox.image.cache.keys import rootfs_key
from trio_sandbox.image.pin import read_pin
from trio_sandbox.labels import labels_problem
from trio_sandbox.locks import lock_file, try_lock, waited_name
from trio_sandbox.snapshot.content import Proceed, digest_of, on
from trio_sandbox.snapshot.description import DISK, DISK_FILE, MAX_LABELS, Description, FileFacts, name_problem
from trio_sandbox.snapshot.store import PAUSE, Artifact, absolute, folder_of, publish, require_room
from trio_sandbox.state.places import disk_of, store_of
from trio_sandbox.state.places import folder_of as sandbox_folder

END_TIMEOUT = 10.0
"""Seconds that a process has which has ended its sandbox and is about to let go of its name."""


def create(
    name: str,
    source: str,
    home: Home,
    *,
    folder: Path | None = None,
    labels: Mapping[str, str] | None = None,
    force: bool = False,
    proceed: Proceed = on,
) -> Artifact:
    """Make the snapshot `name` of the sandbox `source`, in `folder` or else in the data folder. proceed: raises when it
    is called off, which leaves nothing.

    The sandbox cannot be started while its disk is copied; that takes no time where the file system shares blocks.
    Raises InvalidConfigError, SnapshotAlreadyExistsError, SnapshotError, SandboxNotFoundError,
    SandboxStillRunningError, UnsupportedError for one whose root is a disk image, InvalidImageError when the note of
    its image is damaged, StorageError.
    """
    check_request(name, labels)
    place = place_of(name, home, folder, force=force)
    _require_stopped(home, source)
    with ExitStack() as stack:
        with waited_name(home, source, END_TIMEOUT):
            _require_stopped(home, source)  # still: nobody can start it while we have its name
            image = read_pin(sandbox_folder(home, source))
            stack.enter_context(relied_on(home, image.chain_id))
            disk = _copied(disk_of(home, source), place.parent, proceed)
            stack.callback(os.close, disk)
        with storage_errors(place.parent):
            facts = FileFacts(os.fstat(disk).st_size, digest_of(disk, proceed))
        description = Description(
            kind=DISK,
            created_ns=time.time_ns(),
            source=source,
            image=image,
            files={DISK_FILE: facts},
            labels=dict(labels or {}),
        )
        proceed()
        return publish(home, place, description, {DISK_FILE: disk}, force=force)


def place_of(name: str, home: Home, folder: Path | None, *, force: bool) -> Path:
    """Where a snapshot is to be. Raises InvalidConfigError, SnapshotAlreadyExistsError."""
    place = absolute(folder or folder_of(home)) / name
    if not place.parent.is_dir():
        raise InvalidConfigError([f"dest_dir: {str(place.parent)!r} is no folder"])
    require_room(home, place, force=force)
    return place


def check_request(name: object, labels: object) -> None:
    """What is wrong with the name and the labels of a snapshot to be. Raises InvalidConfigError with all of it."""
    found = []
    if (problem := name_problem(name)) is not None:
        found.append(f"name: {problem}")
    if labels is not None and (problem := labels_problem(labels)) is not None:
        found.append(f"labels: {problem}")
    elif isinstance(labels, Mapping) and len(labels) > MAX_LABELS:
        found.append(f"labels: {len(labels)} are too many; {MAX_LABELS} are allowed")
    if found:
        raise InvalidConfigError(found)


def _require_stopped(home: Home, source: str) -> None:
    row = store_of(home).get(source)
    if row.is_live:
        raise SandboxStillRunningError(source)
    if SandboxConfig.from_json(row.config).has_disk_root:
        hint = "its disk image is a file of yours; copy that while the sandbox does not run"
        raise UnsupportedError(f"a snapshot of sandbox {source!r}, whose root is a disk image,", hint)


def _copied(path: Path, folder: Path, proceed: Proceed) -> int:
    with storage_errors(path):
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return anonymous_copy(source, folder, proceed)
    finally:
        os.close(source)


@contextmanager
def relied_on(home: Home, chain_id: str) -> Iterator[None]:
    """Keep the layers from being removed: the sandbox that keeps them may go before there is a snapshot that does."""
    with lock_file(home) as descriptor:
        while not try_lock(descriptor, rootfs_key(chain_id), shared=True):
            time.sleep(PAUSE)
        yield
