"""Snapshots into archives and out of them, with the images beneath. anyio only.

What reads and writes images is imported when it is first needed: see `tests/test_public_names.py`.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from trio_sandbox.client.called_off import in_stoppable_thread
from trio_sandbox.client.creation import in_thread
from trio_sandbox.client.image import Image
from trio_sandbox.errors import ImageError, InvalidConfigError, SnapshotError
from trio_sandbox.home import Home
from trio_sandbox.image.pin import Pin
from trio_sandbox.snapshot import store
from trio_sandbox.snapshot.content import Proceed
from trio_sandbox.snapshot.store import Artifact


async def save_archive(artifact: Artifact, target: Path, home: Home, *, with_image: bool) -> None:
    """See `Snapshot.save`."""
    await in_stoppable_thread(partial(_save, artifact, target, home if with_image else None))


def _save(artifact: Artifact, target: Path, image_home: Home | None, proceed: Proceed) -> None:
    from trio_sandbox.snapshot.save import save
    from trio_sandbox.snapshot.with_image import image_archive

    with ExitStack() as stack:
        image = None
        if image_home is not None:
            image = image_archive(artifact.description.image, image_home, proceed)
            stack.callback(os.close, image)
        save(artifact, target, image, proceed)


async def load_archive(archive: Path, home: Home, name: str | None) -> Artifact:
    """See `Snapshot.load`."""
    from trio_sandbox.snapshot.load import Unpacked

    if name is not None:
        store.check_name(name)
    folder = store.folder_of(home)
    unpacked = Unpacked(archive)

    def read(proceed: Proceed) -> None:
        unpacked.read(home, proceed, accept=lambda own: store.require_room(home, folder / (name or own), force=False))

    def publish(proceed: Proceed) -> Artifact:
        proceed()
        place = folder / (name or unpacked.name)
        return store.publish(home, place, unpacked.description, unpacked.files, force=False)

    try:
        await in_stoppable_thread(read)
        if unpacked.image is not None:
            await _load_image(unpacked.description.image, unpacked.image, str(archive), home)
        return await in_stoppable_thread(publish)
    finally:
        unpacked.close()


async def _load_image(image: Pin, descriptor: int, archive: str, home: Home) -> None:
    """Have the image of a snapshot in the cache, if it is what the snapshot was made on."""
    from trio_sandbox.snapshot.with_image import is_here, name_for

    if await in_thread(is_here, image, home):
        return
    name = name_for(image)
    try:
        # Another process opens it, while this one has it open.
        await Image.load(f"/proc/{os.getpid()}/fd/{descriptor}", tag=name, home=home)
    except (ImageError, InvalidConfigError) as error:
        raise SnapshotError(archive, f"the image in it: {error}") from error
    if (await Image.inspect(name, home=home)).chain_id != image.chain_id:
        await Image.remove(name, force=True, home=home)
        raise SnapshotError(archive, "the image in it is not the one that the snapshot was made on")
