"""Snapshots: the disks of sandboxes that do not run, kept to make new sandboxes of. anyio only.

All of it runs in worker threads; what may take long can be called off.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from trio_sandbox.client.called_off import in_stoppable_thread
from trio_sandbox.client.creation import in_thread
from trio_sandbox.client.snapshot_archive import load_archive, save_archive
from trio_sandbox.home import Home
from trio_sandbox.image_source import path_text
from trio_sandbox.snapshot import store
from trio_sandbox.snapshot.create import check_request, create, place_of
from trio_sandbox.snapshot.store import Artifact

if TYPE_CHECKING:
    from trio_sandbox.client.sandbox import Sandbox

NS_PER_MS = 1e6


@attrs.frozen(repr=False)
class Snapshot:
    """A snapshot as it was when it was looked up: a folder that can be moved, and found by its path then.

    It is a path itself (`os.fspath`). home: the data folder (`Home.default()`). Made by `create`, `open`, `get`, `list`
    and `load`.
    """

    _artifact: Artifact

    # -- what is known

    @property
    def name(self) -> str:
        """That of its folder."""
        return self._artifact.name

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._artifact.path

    @property
    def digest(self) -> str:
        """`sha256:…` of all of it but its name: equal snapshots have equal ones."""
        return self._artifact.description.digest

    @property
    def kind(self) -> str:
        """What it is of: "disk", or "memory" for all of a sandbox that ran."""
        return self._artifact.description.kind

    @property
    def format(self) -> str:
        """How the disk is stored: "raw"."""
        return self._artifact.description.format

    @property
    def size_bytes(self) -> int:
        """Bytes of disk that it takes up, those that it shares with other files counted."""
        return self._artifact.disk_bytes

    @property
    def virtual_bytes(self) -> int:
        """Bytes of its files with their holes: the size that the disk has in a sandbox."""
        return self._artifact.description.virtual_bytes

    @property
    def image(self) -> str:
        """The image beneath the disk, as its user named it."""
        return self._artifact.description.image.reference

    @property
    def image_digest(self) -> str:
        """Of its manifest, by which its registry finds it."""
        return self._artifact.description.image.manifest_digest

    @property
    def chain_id(self) -> str:
        """Of its layers, which the sandboxes that are made of it stand on."""
        return self._artifact.description.image.chain_id

    @property
    def source_sandbox(self) -> str:
        """The name of the sandbox that it was made of."""
        return self._artifact.description.source

    @property
    def created_at(self) -> float:
        """Milliseconds since the epoch."""
        return self._artifact.description.created_ns / NS_PER_MS

    @property
    def labels(self) -> Mapping[str, str]:
        return dict(self._artifact.description.labels)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"<Snapshot {self.name!r} {self.digest[:19]} of {self.source_sandbox!r}>"

    # -- making and finding

    @staticmethod
    async def create(
        name: str,
        from_sandbox: str | Sandbox,
        *,
        memory: bool = False,
        dest_dir: str | os.PathLike[str] | None = None,
        labels: Mapping[str, str] | None = None,
        force: bool = False,
        home: Home | None = None,
    ) -> Snapshot:
        """Keep the disk of a sandbox that does not run; or with `memory` all of one that runs, and goes on.

        from_sandbox: its name, or itself. memory: the programs in it too, which go on where they were in a sandbox that
        is made of the snapshot, on a host with the same QEMU: see docs/snapshots.md.
        name: 1 to 128 letters, digits, '.', '_' and '-'. dest_dir: a folder, in which that of the snapshot is made, in
        the place of the data folder; then the snapshot is found by its path alone. labels: for `list`. force: in the
        place of a snapshot that has the name.

        The sandbox cannot be started while its disk is copied, which takes no time where the file system shares blocks.
        Raises InvalidConfigError, SnapshotAlreadyExistsError, SnapshotError, SandboxNotFoundError,
        SandboxStillRunningError, UnsupportedError for one whose root is a disk image, InvalidImageError, StorageError.
        Cancellation leaves nothing, or all of it when it came too late.
        """
        check_request(name, labels)
        home, folder = home or Home.default(), None if dest_dir is None else Path(dest_dir)
        if memory:
            from trio_sandbox.snapshot.memory import write_snapshot  # it brings Trio along

            place = await in_thread(place_of, name, home, folder, force=force)
            async with _held(from_sandbox, home) as source:
                write = partial(write_snapshot, home, place, source, labels=labels or {}, force=force)
                return Snapshot(await in_stoppable_thread(lambda proceed: write(proceed=proceed)))
        source_name = from_sandbox if isinstance(from_sandbox, str) else await from_sandbox.name
        work = partial(create, name, source_name, home, folder=folder, labels=labels, force=force)
        return Snapshot(await in_stoppable_thread(lambda proceed: work(proceed=proceed)))

    @staticmethod
    async def open(path_or_name: str | os.PathLike[str], *, home: Home | None = None) -> Snapshot:
        """The snapshot in a folder, or one of the data folder by its name. Text is a path that begins with '/', './',
        '../' or '~'. The sizes of its files are checked; `verify` reads them.

        Raises SnapshotNotFoundError, SnapshotError for one that is damaged, InvalidConfigError.
        """
        return Snapshot(await in_thread(store.find, home or Home.default(), path_text(path_or_name)))

    @staticmethod
    async def get(name_or_digest: str, *, home: Home | None = None) -> Snapshot:
        """A snapshot of the data folder by its name, or by its digest: `sha256:` and 12 digits or more. Raises as
        `open`.
        """
        if not name_or_digest.startswith("sha256:"):
            store.check_name(name_or_digest)
        return Snapshot(await in_thread(store.find, home or Home.default(), name_or_digest))

    @staticmethod
    async def list(labels: Mapping[str, str] | None = None, *, home: Home | None = None) -> builtins.list[Snapshot]:
        """Those of the data folder, oldest first. labels: only those that have all of these. One that is damaged is
        left out; `open` says why.
        """
        found = await in_thread(store.all_snapshots, home or Home.default(), labels)
        return [Snapshot(artifact) for artifact in found]

    @staticmethod
    async def remove(name_or_path: str | os.PathLike[str], *, home: Home | None = None) -> None:
        """Remove a snapshot, a damaged one too. Sandboxes that were made of it do not need it.

        Raises SnapshotNotFoundError, StorageError, InvalidConfigError. Cancellation: it is removed all the same.
        """
        await in_thread(store.remove, home or Home.default(), path_text(name_or_path))

    async def verify(self) -> None:
        """Read all of it. Raises SnapshotError when a file is not what it was. Cancellation: no effect."""
        await in_stoppable_thread(self._artifact.verify)

    # -- archives

    @staticmethod
    async def save(
        name_or_path: str | os.PathLike[str],
        archive: str | os.PathLike[str],
        *,
        with_image: bool = False,
        home: Home | None = None,
    ) -> None:
        """Write a snapshot to a new file: a tar stream, compressed by gzip, in which holes take no room. A file that
        has the name is replaced, when the archive is whole.

        with_image: with the image beneath, for machines that cannot pull it. Raises SnapshotNotFoundError,
        SnapshotError for one that is damaged, ImageNotFoundError when the image's layers are not here,
        InvalidConfigError, StorageError. Cancellation leaves nothing.
        """
        home = home or Home.default()
        found = await Snapshot.open(name_or_path, home=home)
        await save_archive(found._artifact, _absolute(archive), home, with_image=with_image)

    @staticmethod
    async def load(archive: str | os.PathLike[str], *, name: str | None = None, home: Home | None = None) -> Snapshot:
        """Take a snapshot out of an archive into the data folder. name: instead of its own.

        All of it is checked before anything is made of it. An image that came along is loaded if it is not here, as
        `localhost/snapshots/…`. Raises SnapshotNotFoundError when there is no such file, SnapshotError for an archive
        that is damaged, foreign or over a limit, SnapshotAlreadyExistsError, InvalidConfigError, StorageError.
        Cancellation leaves nothing but an image that was loaded whole.
        """
        return Snapshot(await load_archive(_absolute(archive), home or Home.default(), name))


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(os.fspath(path)))


@asynccontextmanager
async def _held(sandbox: str | Sandbox, home: Home) -> AsyncIterator[dict[str, Any]]:
    """A checkpoint of a sandbox that runs, for the length of the block."""
    if not isinstance(sandbox, str):
        async with sandbox._control.fork_source() as source:
            yield source
        return
    from trio_sandbox.client.sandbox import Sandbox

    handle = await Sandbox.get(sandbox, home=home)
    async with await handle.connect() as connected, connected._control.fork_source() as source:
        yield source
