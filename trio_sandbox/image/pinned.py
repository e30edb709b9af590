"""Which layers a sandbox stands on, written down once: its tag may mean another image tomorrow."""

from __future__ import annotations

import json
from pathlib import Path

import attrs

from trio_sandbox.errors import ImageNotFoundError, InvalidImageError
from trio_sandbox.files import publish_bytes
from trio_sandbox.home import Home
from trio_sandbox.image.cache.keys import rootfs_key
from trio_sandbox.image.cache.leases import Lease
from trio_sandbox.image.oci import ImageConfig
from trio_sandbox.image.rootfs import RootFilesystem
from trio_sandbox.image.squashfs import is_sound, squashfs_path

NAME = "image.json"


def pin(folder: Path, rootfs: RootFilesystem) -> None:
    """Write down in a sandbox's folder what it stands on. Raises StorageError."""
    plain = {
        "reference": rootfs.reference,
        "chain_id": rootfs.chain_id,
        "manifest_digest": rootfs.manifest_digest,
        "config": attrs.asdict(rootfs.config),
    }
    publish_bytes(folder / NAME, json.dumps(plain).encode())


async def pinned(folder: Path, home: Home, lease: Lease) -> RootFilesystem:
    """The root file system that a sandbox stands on, leased. No registry is asked, whatever its tag means by now.

    Raises ImageNotFoundError when its layers are not here any more, InvalidImageError when the note about them is
    damaged.
    """
    try:
        plain = json.loads((folder / NAME).read_bytes())
        config = dict(plain["config"])
        config |= {name: tuple(config[name]) for name in ("env", "entrypoint", "cmd")}
        reference, chain_id, digest = (str(plain[key]) for key in ("reference", "chain_id", "manifest_digest"))
        image = ImageConfig(**config)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidImageError(str(folder), f"what the sandbox stands on cannot be read: {error}") from error
    await lease.add([rootfs_key(chain_id)])
    path = squashfs_path(chain_id, home)
    if not is_sound(path):
        raise ImageNotFoundError(reference, f"its layers ({chain_id}) are not in the cache any more")
    return RootFilesystem(reference, path, chain_id, digest, image)


def pinned_chain_ids(home: Home) -> set[str]:
    """Of all sandboxes that stay. What cannot be read counts for nothing: its sandbox cannot start either."""
    found = set()
    for note in home.folder("sandboxes").glob(f"*/{NAME}"):
        try:
            found.add(str(json.loads(note.read_bytes())["chain_id"]))
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return found
