"""What an archive turned out to hold, so that a compressed one is not unpacked again only to find its root.

One small file per archive in `cache/archives`, named by the archive's identity on disk (device, inode, size, times) and
by what was asked of it. It is believed only together with a sound root file system; anything wrong with it means "not
known".
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import attrs

from trio_sandbox.files import publish_bytes
from trio_sandbox.home import Home
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.oci import Image, ImageConfig, Layer, host_architecture, parse_object
from trio_sandbox.image.reference import ImageLocation

FORMAT = 1


def record_of(location: ImageLocation, home: Home) -> Path | None:
    """Where `location` is remembered; None for a layout folder, which is quick to read. Raises OSError."""
    if location.is_folder:
        return None
    status = os.stat(location.path)
    identity = (FORMAT, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    key = repr((*identity, location.tag, host_architecture()))
    return home.folder("cache", "archives") / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def remember(record: Path, image: Image) -> None:
    """Write down what was found. Raises StorageError."""
    publish_bytes(record, json.dumps(attrs.asdict(image)).encode())


def recall(record: Path) -> Image | None:
    """What was found before, or None."""
    try:
        document = parse_object(record.read_bytes(), record.name)
        config = document["config"]
        config |= {name: tuple(config[name]) for name in ("env", "entrypoint", "cmd")}
        layers = tuple(Layer(**layer) for layer in document["layers"])
        return Image(document["manifest_digest"], ImageConfig(**config), layers)
    except (OSError, ImageFault, LookupError, TypeError, AttributeError):
        return None
