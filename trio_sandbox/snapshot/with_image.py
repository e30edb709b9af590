"""The image beneath a snapshot, as an OCI archive to send along. Sync.

Not the root file system that was made of it: nobody could tell that one from another that calls itself so, and others
who ask for the image would get it.
"""

from __future__ import annotations

import os
import tarfile
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

from trio_sandbox.errors import ImageNotFoundError, UnsupportedError
from trio_sandbox.files import anonymous_file, storage_errors
from trio_sandbox.home import Home
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.cache.catalog import Catalog
from trio_sandbox.image.cache.save import write_images
from trio_sandbox.image.faults import ImageFault, NoSuchImage
from trio_sandbox.image.layout import LayoutStore
from trio_sandbox.image.pin import Pin
from trio_sandbox.image.progress import Meter
from trio_sandbox.image.squashfs import is_sound, squashfs_path
from trio_sandbox.snapshot.content import Proceed, on


def image_archive(image: Pin, home: Home, proceed: Proceed = on) -> int:
    """An open file without a name, which the caller closes. Raises ImageNotFoundError when its layers are not here as a
    registry has them, StorageError.
    """
    descriptor = anonymous_file(home.scratch)
    try:
        with open(descriptor, "wb", closefd=False) as file, storage_errors(home.scratch):
            _write(image, home, file, proceed)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_here(image: Pin, home: Home) -> bool:
    """Whether its root file system is: then nothing need be loaded."""
    return is_sound(squashfs_path(image.chain_id, home))


def name_for(image: Pin) -> str:
    """Under which an image that came with a snapshot is known: not under the name that it had where it came from, which
    may mean something else here.
    """
    return f"localhost/snapshots/{image.chain_id.removeprefix('sha256:')[:32]}:latest"


def _write(image: Pin, home: Home, file: IO[bytes], proceed: Proceed) -> None:
    def progress(stage: str, done: int, total: int | None, /) -> None:
        proceed()

    for cached in Catalog(home).all():
        if cached.chain_id == image.chain_id:
            write_images([cached], BlobCache(home), file, Meter(progress, threaded=False))
            return
    for layout in sorted(home.images.glob("local/*")):
        if _chain_id(layout) == image.chain_id:
            _write_layout(layout, file, proceed)
            return
    raise ImageNotFoundError(image.reference, "its layers are not in the cache; pull it, or save without it")


def _chain_id(layout: Path) -> str | None:
    with suppress(ImageFault, NoSuchImage, UnsupportedError, OSError):
        with closing(LayoutStore.open(layout, None)) as store:
            return store.image().chain_id
    return None


def _write_layout(layout: Path, file: IO[bytes], proceed: Proceed) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(layout.rglob("*")):
            if path.is_file():
                proceed()
                archive.add(path, str(path.relative_to(layout)), recursive=False)
