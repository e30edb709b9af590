"""Snapshots on disk: folders, found by name, digest or path; published whole, and removed. Sync.

Files have no name until all of them are whole. Then they are named in a hidden folder beside the place, `snapshot.json`
last, and the folder is renamed: so whoever dies in the middle leaves no half snapshot, but at most a hidden folder,
which the next `publish` removes. A folder without a description is no snapshot, however it came to be.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import attrs

from trio_sandbox.errors import (
    InvalidConfigError,
    SnapshotAlreadyExistsError,
    SnapshotError,
    SnapshotNotFoundError,
    StorageError,
)
from trio_sandbox.files import publish as name_file
from trio_sandbox.files import publish_bytes, storage_errors
from trio_sandbox.home import Home
from trio_sandbox.image_source import is_path
from trio_sandbox.locks import lock_file, try_lock
from trio_sandbox.snapshot.content import Proceed, digest_of, on
from trio_sandbox.snapshot.description import (
    DESCRIPTION_FILE,
    MAX_DESCRIPTION_BYTES,
    Description,
    SnapshotFault,
    name_problem,
)

FILE_MODE = 0o600
DIGEST_SHOWN = 12
"""Hexadecimal digits by which a snapshot may be named, at least."""
REPLACED = ".old"
"""After the hidden name of a snapshot that another one takes the place of."""
PAUSE = 0.01
"""Seconds between two tries for a lock that is held for milliseconds."""
_HIDDEN = re.compile(r"\.(.+)\.[0-9a-f]{8}(\.old)?")


@attrs.frozen
class Artifact:
    """A snapshot in its folder, as it was when it was looked up."""

    path: Path
    description: Description

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def disk_bytes(self) -> int:
        """Bytes of disk that its files take up; those that it shares with other files are counted."""
        total = 0
        for name in (*self.description.files, DESCRIPTION_FILE):
            with suppress(OSError):
                total += (self.path / name).stat().st_blocks * 512
        return total

    @classmethod
    def at(cls, path: Path) -> Artifact:
        """The snapshot whose folder this is. Its files have the sizes that they should; `verify` reads them.

        Raises SnapshotNotFoundError, SnapshotError.
        """
        path = absolute(path)
        try:
            data = _read(path / DESCRIPTION_FILE)
        except (FileNotFoundError, NotADirectoryError):
            raise SnapshotNotFoundError(str(path), f"it is no snapshot: it has no {DESCRIPTION_FILE}") from None
        except OSError as error:
            raise SnapshotError(str(path), f"{DESCRIPTION_FILE} cannot be read: {error.strerror}") from error
        with blame(path):
            artifact = cls(path, Description.parse(data))
            with artifact.opened():
                return artifact

    @contextmanager
    def opened(self) -> Iterator[Mapping[str, int]]:
        """Descriptors of its files for the length of the block, which stay what they are although it is removed.

        Raises SnapshotError when one is missing or has another size.
        """
        with ExitStack() as stack:
            found: dict[str, int] = {}
            for name, facts in self.description.files.items():
                try:
                    found[name] = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                except OSError as error:
                    raise SnapshotError(str(self.path), f"{name} cannot be opened: {error.strerror}") from error
                stack.callback(os.close, found[name])
                status = os.fstat(found[name])
                if status.st_size != facts.size or not stat.S_ISREG(status.st_mode):
                    raise SnapshotError(str(self.path), f"{name} has {status.st_size} bytes instead of {facts.size}")
            yield found

    def verify(self, proceed: Proceed = on) -> None:
        """Read all of it. Raises SnapshotError when a file is not what it was."""
        with self.opened() as files:
            for name, descriptor in files.items():
                with storage_errors(self.path):
                    digest = digest_of(descriptor, proceed)
                if digest != self.description.files[name].digest:
                    raise SnapshotError(str(self.path), f"{name} is damaged: its bytes hash to {digest}")


def absolute(path: str | os.PathLike[str]) -> Path:
    """A path whose last component is a name."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def _read(path: Path) -> bytes:
    """A small file, or the beginning of a large one. It may be anything, and is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        return file.read(MAX_DESCRIPTION_BYTES + 1)


@contextmanager
def blame(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise SnapshotError about `path` for what the block finds wrong."""
    try:
        yield
    except SnapshotFault as fault:
        raise SnapshotError(os.fspath(path), str(fault)) from fault


# -- finding


def folder_of(home: Home) -> Path:
    """Where the snapshots of a data folder are, by name."""
    return home.folder("snapshots")


def find(home: Home, name: str) -> Artifact:
    """By name, by path, or by digest (`sha256:` and 12 digits at least).

    Raises SnapshotNotFoundError, SnapshotError, InvalidConfigError.
    """
    if is_path(name):
        return Artifact.at(Path(name))
    if name.startswith("sha256:"):
        return _by_digest(home, name)
    check_name(name)
    try:
        return Artifact.at(folder_of(home) / name)
    except SnapshotNotFoundError:
        raise SnapshotNotFoundError(name) from None


def _by_digest(home: Home, digest: str) -> Artifact:
    if len(digest.removeprefix("sha256:")) < DIGEST_SHOWN:
        raise InvalidConfigError([f"snapshot: {digest!r} needs {DIGEST_SHOWN} hexadecimal digits at least"])
    found = [artifact for artifact in all_snapshots(home) if artifact.description.digest.startswith(digest)]
    if not found:
        raise SnapshotNotFoundError(digest)
    if len({artifact.description.digest for artifact in found}) > 1:
        names = ", ".join(artifact.name for artifact in found)
        raise SnapshotError(digest, f"several have this digest ({names}); give more digits")
    return found[0]


def all_snapshots(home: Home, labels: Mapping[str, str] | None = None) -> list[Artifact]:
    """Those in the data folder that have these labels, oldest first. One that is damaged is left out."""
    wanted = (labels or {}).items()
    found = []
    for note in folder_of(home).glob(f"[!.]*/{DESCRIPTION_FILE}"):
        with suppress(SnapshotError):
            artifact = Artifact.at(note.parent)
            if wanted <= artifact.description.labels.items():
                found.append(artifact)
    return sorted(found, key=lambda artifact: (artifact.description.created_ns, artifact.name))


def check_name(name: object) -> str:
    """The name of a snapshot to be. Raises InvalidConfigError."""
    if (problem := name_problem(name)) is not None:
        raise InvalidConfigError([f"snapshot: {problem}"])
    assert isinstance(name, str)
    return name


# -- making


def require_room(home: Home, place: Path, *, force: bool) -> None:
    """Raises SnapshotAlreadyExistsError when there is a snapshot at `place` that may not be replaced, and SnapshotError
    when there is something else.
    """
    if (place / DESCRIPTION_FILE).exists():
        if not force:
            raise SnapshotAlreadyExistsError(str(place))
    elif os.path.lexists(place) and not _is_half_made(home, place):
        raise SnapshotError(str(place), "something that is no snapshot has this name; choose another")


def publish(home: Home, place: Path, description: Description, files: Mapping[str, int], *, force: bool) -> Artifact:
    """Make a snapshot of open files without a name, which are on the file system of `place`.

    force: in the place of one that has the name, which stays whole until the new one is. Raises
    SnapshotAlreadyExistsError, SnapshotError, StorageError.
    """
    with storage_errors(place.parent):
        for descriptor in files.values():
            os.fsync(descriptor)  # what may take long, before others have to wait for us
    with _alone(home):
        require_room(home, place, force=force)
        clean(home, place)
        hidden = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
        with storage_errors(place.parent):
            hidden.mkdir(mode=0o700)
            try:
                for name, descriptor in files.items():
                    name_file(descriptor, hidden / name, FILE_MODE)
                publish_bytes(hidden / DESCRIPTION_FILE, description.to_bytes())
                _sync_folder(hidden)
                _exchange(hidden, place)
            except StorageError as error:  # of a folder that nobody knows
                raise StorageError(str(place.parent), error.errno, os.strerror(error.errno)) from error
            finally:
                shutil.rmtree(hidden, ignore_errors=True)
            _sync_folder(place.parent)
    return Artifact(place, description)


def _exchange(new: Path, place: Path) -> None:
    """Give the folder its name; what had it goes."""
    old = new.with_name(f"{new.name}{REPLACED}")
    with suppress(FileNotFoundError):
        os.rename(place, old)
    try:
        os.rename(new, place)
    except BaseException:
        with suppress(FileNotFoundError):
            os.rename(old, place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def remove(home: Home, name: str) -> Path:
    """Remove a snapshot, found as `find` finds it; in the data folder a damaged one too, by its name. Where it was.

    Sandboxes that were made of it do not need it. Raises SnapshotNotFoundError, StorageError, InvalidConfigError, and
    SnapshotError for a folder elsewhere that holds more than a snapshot, or is damaged: that may be somebody's work.
    """
    try:
        found = find(home, name)
        place = found.path
        others = set(os.listdir(place)) - {DESCRIPTION_FILE, *found.description.files}
        if others and place.parent != folder_of(home):
            raise SnapshotError(str(place), f"it holds other files too ({min(others)!r}); remove the folder yourself")
    except SnapshotNotFoundError:
        raise
    except SnapshotError:
        place = folder_of(home) / name
        if name_problem(name) is not None or not place.is_dir():
            raise
    hidden = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    with _alone(home), storage_errors(place.parent):
        try:
            os.rename(place, hidden)  # in one step: nobody finds half of it
        except FileNotFoundError:
            raise SnapshotNotFoundError(name) from None
        shutil.rmtree(hidden, ignore_errors=True)
    return place


def clean(home: Home, place: Path) -> None:
    """Remove what was left by processes that were killed: in the data folder, and of this snapshot where it is to be.
    The caller is alone.
    """
    for path in {*folder_of(home).iterdir(), *place.parent.iterdir()}:
        match = _HIDDEN.fullmatch(path.name)
        if match is None or not (path.parent == folder_of(home) or match[1] == place.name):
            continue
        target = path.with_name(match[1])
        if match[2] and not target.exists():  # killed in the middle of an exchange
            os.rename(path, target)
        else:
            shutil.rmtree(path, ignore_errors=True)
    if _is_half_made(home, place):
        shutil.rmtree(place, ignore_errors=True)


def _is_half_made(home: Home, place: Path) -> bool:
    """Whether this folder is one without a description that may go: of the data folder, or an empty one."""
    if place.is_symlink() or not place.is_dir() or (place / DESCRIPTION_FILE).exists():
        return False
    return place.parent == folder_of(home) or not any(place.iterdir())


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """While nobody else names or removes a snapshot, which takes milliseconds."""
    with lock_file(home) as descriptor:
        while not try_lock(descriptor, "snapshots"):
            time.sleep(PAUSE)
        yield


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
