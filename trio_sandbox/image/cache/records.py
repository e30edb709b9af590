"""Which manifest a name means here: one small file for each canonical reference, published whole. Sync.

The time of the file is when the image was used last; all else is in it. A file that cannot be read, or is about another
reference than its name says, means "not known".
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import attrs

from trio_sandbox.files import publish_bytes, storage_errors
from trio_sandbox.home import Home
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.oci import Descriptor, host_architecture, is_digest, parse_object

FORMAT = 1


@attrs.frozen
class Record:
    """What a reference means. Times in nanoseconds since the epoch."""

    reference: str
    """Canonical: with registry, repository, and tag or digest."""
    manifest: Descriptor
    pulled_ns: int
    used_ns: int = 0


@attrs.frozen
class Records:
    """The references of one data folder, for this architecture. Raises StorageError where the disk refuses."""

    home: Home

    def find(self, reference: str) -> Record | None:
        """What a canonical reference means here."""
        return self._read(self._path(reference))

    def all(self) -> list[Record]:
        """All of them, by reference."""
        return sorted(self._all(), key=lambda record: record.reference)

    def publish(self, reference: str, manifest: Descriptor) -> None:
        """Let a reference mean this manifest from now on."""
        plain = {
            "format": FORMAT,
            "reference": reference,
            "architecture": host_architecture(),
            "media_type": manifest.media_type,
            "digest": manifest.digest,
            "manifest_size": manifest.size,
            "pulled_ns": time.time_ns(),
        }
        publish_bytes(self._path(reference), json.dumps(plain).encode())

    def touch(self, reference: str) -> None:
        """Write down that the image is used now; a disk that refuses does not matter."""
        with suppress(OSError):
            os.utime(self._path(reference))

    def discard(self, reference: str) -> None:
        """Forget a reference. Harmless when it is not known."""
        path = self._path(reference)
        with storage_errors(path.parent):
            path.unlink(missing_ok=True)

    def _all(self) -> Iterator[Record]:
        for path in self._folder().glob("*.json"):
            if (record := self._read(path)) is not None:
                yield record

    def _folder(self) -> Path:
        return self.home.folder("cache", "references")

    def _path(self, reference: str) -> Path:
        key = f"{reference} {host_architecture()}"
        return self._folder() / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def _read(self, path: Path) -> Record | None:
        try:
            used_ns = path.stat().st_mtime_ns
            plain = parse_object(path.read_bytes(), path.name)
            manifest = Descriptor(plain["media_type"], plain["digest"], plain["manifest_size"])
            record = Record(plain["reference"], manifest, plain["pulled_ns"], used_ns)
            is_ours = plain["format"] == FORMAT and self._path(record.reference) == path
        except (OSError, ImageFault, LookupError, TypeError):
            return None
        is_valid = is_digest(manifest.digest) and {type(manifest.size), type(record.pulled_ns)} == {int}
        return record if is_ours and is_valid else None
