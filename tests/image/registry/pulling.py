"""What several test files of registries need: an image that is there, and access to it."""

from __future__ import annotations

import os
import random
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from tests.image.images import Item, TestImage, layer_tar, make_image
from trio_sandbox.home import Home
from trio_sandbox.image.oci import Descriptor
from trio_sandbox.image.registry.access import RegistryAccess
from trio_sandbox.image.registry.fetch import fetch_blob
from trio_sandbox.image.registry.reference import RegistryReference
from trio_sandbox.image.registry.resolve import resolve_image
from trio_sandbox.registry_auth import RegistryAuth

BLOB_BYTES = 3_000_000


def one_layer_image() -> TestImage:
    """Of one layer of about BLOB_BYTES bytes that do not repeat."""
    return make_image([layer_tar([Item("a", random.Random(7).randbytes(BLOB_BYTES))])], compression="gzip")


def access(folder: Path, settings: str, auth: RegistryAuth | None = None) -> RegistryAccess:
    """Access by these lines of registries.toml. folder: exists, and is the data folder from now on."""
    (folder / "registries.toml").write_text(settings)
    return RegistryAccess.load(Home(folder), auth)


def plainly(host: str, *, retries: int = 2, read_timeout: float = 600.0, **more: object) -> str:
    """Settings for a host by plain http."""
    lines = [f'[registry."{host}"]', "insecure = true", f"retries = {retries}", f"read_timeout = {read_timeout}"]
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in more.items()), ""])


@attrs.define
class Pull:
    """The layers of one image, fetched into a folder."""

    reference: RegistryReference
    access: RegistryAccess
    folder: Path
    counts: list[int] = attrs.field(factory=list)

    async def run(self) -> bytes:
        """The first layer's bytes."""
        resolved = await resolve_image(self.reference, self.access)
        return await self.fetch(resolved.layers[0])

    async def fetch(self, layer: Descriptor) -> bytes:
        part = self.part(layer)
        await fetch_blob(self.reference, layer, part, self.access, self.counts.append)
        return part.read_bytes()

    def part(self, layer: Descriptor) -> Path:
        return self.folder / layer.hex


def sockets(host: str) -> int:
    """How many sockets this process has that are connected with HOST:PORT."""
    count = 0
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # it is closed meanwhile, or not connected
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.socket(fileno=os.dup(number)) as sock:
                    peer = sock.getpeername()
                    count += isinstance(peer, tuple) and peer[1] == int(host.rpartition(":")[2])
    return count


@contextmanager
def no_sockets_left(host: str) -> Iterator[None]:
    """Check that the block leaves no connection with HOST:PORT."""
    assert sockets(host) == 0
    yield
    assert sockets(host) == 0


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def everything_said(error: BaseException | None) -> str:
    """The texts of an error and of all that it was made of."""
    if error is None:
        return ""
    own = f"{error} {error!r} {vars(error)}"
    return own + everything_said(error.__cause__) + everything_said(error.__context__)
