"""An image by its name: policies, what is downloaded and what is not, and every kind of damage to the cache."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
import trio

from tests.image.cache.remotes import REFERENCE, Events, Registry, found, obtain
from tests.image.images import Item, TestImage, layer_tar, make_image
from trio_sandbox.config import PullPolicy
from trio_sandbox.errors import ImageNotFoundError
from trio_sandbox.home import Home
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.cache.leases import leased
from trio_sandbox.image.cache.obtain import Obtaining, Remote
from trio_sandbox.image.cache.records import Records
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.limits import Limits
from trio_sandbox.image.squashfs import is_sound, squashfs_path
from trio_sandbox.pull_event import PullEvent

pytestmark = pytest.mark.anyio

NOISE = random.Random(6).randbytes(200_000)


def demo(text: str = "one", *, compression: str = "gzip") -> TestImage:
    return make_image(
        [layer_tar([Item("noise", NOISE)]), layer_tar([Item("a", text.encode())])], compression=compression
    )


def nobody() -> Remote:
    raise AssertionError("the registry was asked")


async def cached(home: Home, policy: PullPolicy = PullPolicy.IF_MISSING) -> str:
    with leased(home) as lease:
        image = await Obtaining(REFERENCE, "demo", home, policy, lease, lambda _: None).run(nobody)
    assert is_sound(squashfs_path(image.chain_id, home))
    return image.manifest_digest


async def test_what_is_pulled_is_there_and_costs_no_network_later(home: Home) -> None:
    registry = Registry(demo())
    image = await obtain(home, registry)
    assert is_sound(squashfs_path(image.chain_id, home))
    assert registry.served == {layer.digest: layer.size for layer in found(registry.image).layers}
    for policy in (PullPolicy.IF_MISSING, PullPolicy.NEVER):
        assert await cached(home, policy) == image.manifest_digest


async def test_what_others_bring_at_the_last_moment_is_not_waited_for(home: Home) -> None:
    """Another process may have what was missing a moment ago, between the look and the download."""
    registry = Registry(demo())

    def bring(event: PullEvent) -> None:
        if event.event_type == "resolved":
            for layer in found(registry.image).layers:
                BlobCache(home).path(layer.digest).write_bytes(registry.image.blobs[layer.digest])

    with trio.fail_after(30):
        image = await obtain(home, registry, events=bring)
    assert is_sound(squashfs_path(image.chain_id, home))
    assert registry.served == {}


async def test_never(home: Home) -> None:
    with pytest.raises(ImageNotFoundError, match="not in the cache, and the pull policy is 'never'"):
        await cached(home, PullPolicy.NEVER)
    await obtain(home, Registry(demo()))
    assert await cached(home, PullPolicy.NEVER)


async def test_always_asks_and_fetches_only_what_is_new(home: Home) -> None:
    await obtain(home, Registry(demo("one")))
    same, moved = Registry(demo("one")), Registry(demo("two"))
    await obtain(home, same, PullPolicy.ALWAYS)
    assert (same.resolved, same.served) == (1, {})
    image = await obtain(home, moved, PullPolicy.ALWAYS)
    assert list(moved.served) == [found(moved.image).layers[1].digest]
    assert await cached(home) == image.manifest_digest


async def test_a_moved_tag_changes_nothing_until_it_is_asked_for(home: Home) -> None:
    first = await obtain(home, Registry(demo("one")))
    moved = Registry(demo("two"))
    assert await obtain(home, moved) == first
    assert moved.resolved == 0


async def test_a_layer_that_is_there_twice_is_downloaded_once(home: Home) -> None:
    layer = layer_tar([Item("a", NOISE)])
    registry, events = Registry(make_image([layer, layer])), Events()
    await obtain(home, registry, events=events)
    assert sum(registry.served.values()) == len(layer)
    assert [event.total_download_bytes for event in events.all if event.event_type == "resolved"] == [len(layer)]


# --- damage


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    match how:
        case "gone":
            path.unlink()
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "flipped":
            middle = len(data) // 2
            path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        case "link":
            path.unlink()
            path.symlink_to("/etc/passwd")
        case "folder":
            path.unlink()
            path.mkdir()


@pytest.mark.parametrize("how", ["gone", "cut", "flipped", "link"])
@pytest.mark.parametrize("what", ["manifest", "config", "layer", "rootfs", "all but the record"])
async def test_whatever_is_damaged_is_brought_again(home: Home, what: str, how: str) -> None:
    registry = Registry(demo())
    image, there = await obtain(home, registry), found(registry.image)
    blobs, root = BlobCache(home), squashfs_path(image.chain_id, home)
    paths = {
        "manifest": [blobs.path(there.manifest.digest)],
        "config": [blobs.path(digest) for digest in there.documents if digest != there.manifest.digest],
        "layer": [blobs.path(there.layers[0].digest), root],
        "rootfs": [root],
        "all but the record": [*map(blobs.path, blobs.digests()), root],
    }[what]
    for path in paths:
        if path == root and how == "flipped":
            path.unlink()  # what is wrong inside a squashfs is the guest's to find
        else:
            damage(path, how)
    again = Registry(demo())
    assert await obtain(home, again) == image
    assert is_sound(root)
    assert await cached(home) == image.manifest_digest
    if what == "layer":
        assert list(again.served) == [there.layers[0].digest]
    elif what == "rootfs":
        assert again.resolved == 0


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 1, "reference": 3}', b"\xff"])
async def test_a_record_that_cannot_be_read_means_not_known(home: Home, text: bytes) -> None:
    await obtain(home, Registry(demo()))
    (path,) = home.folder("cache", "references").iterdir()
    path.write_bytes(text)
    assert Records(home).all() == []
    with pytest.raises(ImageNotFoundError):
        await cached(home, PullPolicy.NEVER)
    again = Registry(demo())
    await obtain(home, again)
    assert again.served == {}  # the layers are what they were


async def test_a_record_means_only_the_reference_of_its_name(home: Home) -> None:
    await obtain(home, Registry(demo()))
    (path,) = home.folder("cache", "references").iterdir()
    path.rename(path.with_name("0" * 64 + ".json"))
    assert Records(home).all() == []


# --- downloads


async def test_what_was_interrupted_goes_on(home: Home) -> None:
    registry = Registry(demo(compression="none"), piece=1000, pause=0.001)
    with trio.move_on_after(0.05) as scope:
        await obtain(home, registry)
    assert scope.cancelled_caught
    before = sum(registry.served.values())
    rest = Registry(registry.image)
    await obtain(home, rest)
    assert before > 0
    assert before + sum(rest.served.values()) == sum(layer.size for layer in found(registry.image).layers)
    assert list(BlobCache(home).parts.iterdir()) == []


async def test_the_first_failure_leaves_bare_and_ends_the_others(home: Home) -> None:
    class Broken(Registry):
        async def fetch(self, descriptor: object, part: Path, /) -> None:
            if part.name == found(self.image).layers[0].hex:
                raise ImageNotFoundError("demo", "no such blob")
            await trio.sleep_forever()

    with pytest.raises(ImageNotFoundError, match="no such blob"):
        await obtain(home, Broken(demo()))
    assert Records(home).all() == []


async def test_more_than_an_image_may_hold_is_not_downloaded(home: Home) -> None:
    registry = Registry(demo(compression="none"))
    size = sum(layer.size for layer in found(registry.image).layers)
    with pytest.raises(ImageFault, match=f"its layers have {size} bytes"):
        await obtain(home, registry, limits=Limits(total_bytes=size - 1))
    assert registry.served == {}
    await obtain(home, registry, limits=Limits(total_bytes=size))


async def test_downloads_that_nobody_goes_on_with_are_bounded(home: Home) -> None:
    blobs = BlobCache(home)
    for number in range(40):
        part = blobs.part(f"sha256:{number:064x}")
        part.write_bytes(bytes(1000))
        os.utime(part, (1e9 + number, time.time() - 3600 + number))
    old = blobs.part("sha256:" + "f" * 64)
    old.write_bytes(b"old")
    os.utime(old, (0, 0))
    await obtain(home, Registry(demo()))
    left = sorted(path.name for path in blobs.parts.iterdir())
    assert left == [f"{number:064x}" for number in range(8, 40)]


# --- the price of a look-up


async def test_a_look_up_imports_no_registry_client_and_is_quick(home: Home) -> None:
    await obtain(home, Registry(demo()))
    took = []
    for _ in range(20):
        began = time.perf_counter()
        await cached(home)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.005
