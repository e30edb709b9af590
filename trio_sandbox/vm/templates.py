"""Warm templates on disk: the memory and device state of a machine that has booted, for clones to start from.

A template is a few files of one key: `KEY.ram` (the guest's memory, mapped private by every clone), `KEY.state`
(QEMU's device state), for a ready template `KEY.upper` (the writable disk as the guest remembers it), and `KEY.json`,
which is written last and makes the others count. All are made without a name and linked in when they are whole, so a
builder that is killed leaves at most files that no JSON names; the next builder removes those.

A template is used only by the start of the host's kernel that made it: its files are never synced to disk, so that
after a power cut there is no telling what they hold. It is believed only while its files are what the JSON says they
were.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from trio_sandbox.files import publish, publish_bytes

MAX_TEMPLATES = 12
"""Templates kept; the least recently used go first."""
MAX_BYTES = 4 << 30
"""Bytes of disk that all templates together may take up. One for a 512 MiB guest takes about 150 MB."""
JSON_LIMIT = 64 << 10
PARTS = ("ram", "state", "upper", "kernel")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@attrs.frozen
class OpenTemplate:
    """A template's files, open: they stay usable when the template is evicted meanwhile.

    upper: None in a blank one. kernel: the stub that clones are given (`stub.py`), None where there is none.
    """

    key: str
    ram: int
    state: int
    upper: int | None
    kernel: int | None


class TemplateStore:
    """The templates in one folder. Calls are short and block; those that write are made under the caller's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def opened(self, key: str) -> Iterator[OpenTemplate | None]:
        """The template of `key` for the length of the block, or None when there is none that can be believed."""
        with ExitStack() as stack:
            yield self._open(key, stack)

    def _open(self, key: str, stack: ExitStack) -> OpenTemplate | None:
        facts = self._facts(key)
        if facts is None:
            return None
        found: dict[str, int] = {}
        for part in facts:
            try:
                found[part] = os.open(self._path(key, part), os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                return None
            stack.callback(os.close, found[part])
            if _identity(found[part]) != facts[part]:
                return None
        try:
            os.utime(self._path(key, "json"))  # for the least-recently-used order
        except OSError:
            return None
        return OpenTemplate(key, found["ram"], found["state"], found.get("upper"), found.get("kernel"))

    def _facts(self, key: str) -> dict[str, list[int]] | None:
        try:
            with self._path(key, "json").open("rb") as file:
                known = json.loads(file.read(JSON_LIMIT))
            if known["host_start"] != host_start():
                return None
            facts = known["files"]
            valid = {"ram", "state"} <= set(facts) <= set(PARTS)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return facts if valid else None

    def publish(self, key: str, files: dict[str, int]) -> None:
        """Make a template of open files without names: "ram", "state", perhaps "upper" and "kernel". Raises
        StorageError.
        """
        for part, descriptor in files.items():
            publish(descriptor, self._path(key, part), durable=False)
        known = {
            "host_start": host_start(),
            "files": {part: _identity(descriptor) for part, descriptor in files.items()},
        }
        publish_bytes(self._path(key, "json"), json.dumps(known).encode())

    def discard(self, key: str) -> None:
        """Forget a template. Machines that were cloned from it go on."""
        for part in ("json", *PARTS):
            self._path(key, part).unlink(missing_ok=True)

    def trim(self, keep: str, *, most: int = MAX_TEMPLATES, most_bytes: int = MAX_BYTES) -> None:
        """Remove what no JSON names, what another start of the host made, and the least recently used beyond the
        bounds.
        """
        ages: list[tuple[float, str]] = []
        for key in {path.name.partition(".")[0] for path in self._folder.iterdir()} - {keep}:
            if self._facts(key) is None:
                self.discard(key)
            else:
                ages.append((self._path(key, "json").stat().st_mtime, key))
        room, room_bytes = most - 1, most_bytes - self.size(keep)
        for _, key in sorted(ages, reverse=True):
            room -= 1
            room_bytes -= self.size(key)
            if room < 0 or room_bytes < 0:
                self.discard(key)

    def size(self, key: str) -> int:
        """Bytes of disk that a template takes up."""
        total = 0
        for part in PARTS:
            try:
                total += self._path(key, part).stat().st_blocks * 512
            except FileNotFoundError:
                continue
        return total

    def keys(self) -> frozenset[str]:
        """The keys of the templates that are whole."""
        return frozenset(path.stem for path in self._folder.glob("*.json"))

    def _path(self, key: str, part: str) -> Path:
        return self._folder / f"{key}.{part}"


def _identity(descriptor: int) -> list[int]:
    found = os.fstat(descriptor)
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def host_start() -> str:
    """What tells one start of the host's kernel from another."""
    return BOOT_ID.read_text().strip()
