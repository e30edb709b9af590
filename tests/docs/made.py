"""What the setup comments of pages ask for: things of which a page says that the reader has them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import trio

from tests.image.images import Item, layer_tar, layout_files, make_image
from tests.real.disks import ext4, unpack_small_root
from trio_sandbox import Image
from trio_sandbox.home import Home


def make_archive(path: str) -> None:
    """An OCI archive: the image `local/base`, without a name."""
    layout = Home.default().images / "local" / "base"
    with tarfile.open(path, "w") as tar:
        for part in ("oci-layout", "index.json", "blobs"):
            tar.add(layout / part, part)


async def load_image(reference: str) -> None:
    """A small image, in the cache as if a registry had called it `reference`. It cannot run anything."""
    image = make_image([layer_tar([Item("etc/hostname", b"made")])])
    with tarfile.open("made.tar", "w") as tar:
        for name, content in layout_files(image).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    await Image.load("made.tar", tag=reference)
    Path("made.tar").unlink()


async def make_rootfs(folder: str) -> None:
    """A folder with a root file system in it: a shell and a few programs."""
    await trio.to_thread.run_sync(unpack_small_root, Home.default(), Path(folder))


async def make_disk(path: str) -> None:
    """A raw disk image with such a root file system in it, as ext4 without partitions."""
    await make_rootfs("made-rootfs")
    ext4(Path(path), 64, Path("made-rootfs"))
