"""A registry in memory, behind the seam that the cache sees: what it serves, how slowly, and how it fails."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from tests.image.images import MANIFEST, TestImage
from trio_sandbox.config import PullPolicy
from trio_sandbox.home import Home
from trio_sandbox.image.cache.leases import leased
from trio_sandbox.image.cache.obtain import Obtaining
from trio_sandbox.image.limits import DEFAULT_LIMITS, Limits
from trio_sandbox.image.oci import Descriptor, Image, parse_manifest, resolve
from trio_sandbox.pull_event import PullEvent

REFERENCE = "registry.test/library/demo:1"
NAME = "registry.test/demo"


@attrs.frozen
class Found:
    """What a reference means there."""

    image: Image
    documents: dict[str, bytes]
    manifest: Descriptor
    layers: tuple[Descriptor, ...]


def found(image: TestImage) -> Found:
    """The last manifest of an image."""
    entry = image.index[-1]
    manifest = Descriptor(MANIFEST, entry["digest"], entry["size"])
    config, layers = parse_manifest(image.blobs[manifest.digest], MANIFEST)
    documents = {digest: image.blobs[digest] for digest in (manifest.digest, config.digest)}
    return Found(resolve(manifest, lambda wanted: image.blobs[wanted.digest]), documents, manifest, layers)


@attrs.define(eq=False)
class Registry:
    """Serves one image, `piece` bytes every `pause` seconds. before: called before each piece."""

    image: TestImage
    piece: int = 1 << 20
    pause: float = 0.0
    before: Callable[[], None] = lambda: None
    resolved: int = 0
    served: dict[str, int] = attrs.field(factory=dict)
    """Bytes by digest."""

    async def resolve(self) -> Found:
        await trio.lowlevel.checkpoint()
        self.resolved += 1
        return found(self.image)

    async def fetch(self, descriptor: Descriptor, part: Path, /) -> None:
        data = self.image.blobs[descriptor.digest]
        with part.open("ab") as file:
            while (at := file.tell()) < len(data):
                await trio.sleep(self.pause)
                self.before()
                file.write(data[at : at + self.piece])
                file.flush()
                self.served[descriptor.digest] = self.served.get(descriptor.digest, 0) + min(self.piece, len(data) - at)
        if "sha256:" + hashlib.sha256(part.read_bytes()).hexdigest() != descriptor.digest:
            part.unlink()
            raise AssertionError(f"the part of {descriptor.digest} was damaged")


@attrs.define
class Events:
    """What was told."""

    all: list[PullEvent] = attrs.field(factory=list)

    def __call__(self, event: PullEvent) -> None:
        self.all.append(event)

    def types(self) -> list[str]:
        return [event.event_type for event in self.all]


async def obtain(
    home: Home,
    registry: Registry,
    policy: PullPolicy = PullPolicy.IF_MISSING,
    events: Callable[[PullEvent], None] = lambda _: None,
    reference: str = REFERENCE,
    limits: Limits = DEFAULT_LIMITS,
) -> Image:
    """The image of a reference, from the cache or this registry."""
    with leased(home) as lease:
        return await Obtaining(reference, NAME, home, policy, lease, events, limits).run(lambda: registry)
