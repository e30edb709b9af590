"""What the cache holds, how large it is, and what goes when an image goes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.image.cache.remotes import REFERENCE, Registry, found, obtain
from tests.image.images import Item, TestImage, layer_tar, make_image, write_layout
from trio_sandbox.errors import ImageInUseError, ImageNotFoundError
from trio_sandbox.home import Home
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.cache.catalog import Catalog
from trio_sandbox.image.cache.collect import prune, remove_image, sweep, usage
from trio_sandbox.image.cache.keys import blob_key, rootfs_key
from trio_sandbox.image.cache.leases import leased
from trio_sandbox.image.cache.records import Records
from trio_sandbox.image.pinned import pin, pinned
from trio_sandbox.image.rootfs import RootFilesystem, prepare_rootfs
from trio_sandbox.image.squashfs import squashfs_path

pytestmark = pytest.mark.anyio

SHARED = layer_tar([Item("shared", bytes(range(256)) * 1000)])
CONFIG = {"Env": ["A=1"], "Cmd": ["sh"], "Labels": {"who": "me"}}
OTHER = "registry.test/library/other:1"


def demo(text: str) -> TestImage:
    return make_image([SHARED, layer_tar([Item("a", text.encode())])], compression="gzip", config=CONFIG)


def files_in(home: Home) -> set[str]:
    """All that the cache holds."""
    return {str(path.relative_to(home.root)) for path in (home.root / "cache").rglob("*") if path.is_file()}


def removed(home: Home, reference: str = REFERENCE, *, force: bool = False) -> tuple[str, ...]:
    return remove_image(home, reference, "demo", force=force).images_removed


async def test_an_image_in_the_catalog(home: Home) -> None:
    image = demo("one")
    await obtain(home, Registry(image))
    catalog, there = Catalog(home), found(image)
    detail = catalog.detail(catalog.find(REFERENCE, "demo"))
    assert [catalog.info(one) for one in catalog.all()] == [detail.info]
    info = detail.info
    assert (info.reference, info.manifest_digest, info.layer_count) == (REFERENCE, there.manifest.digest, 2)
    assert info.size_bytes == sum(map(len, image.blobs.values()))
    assert info.disk_bytes > info.size_bytes
    assert info.created_at is None
    assert info.last_used_at >= info.pulled_at > 1e12
    assert (detail.config.env, detail.config.cmd, detail.config.labels) == (("A=1",), ("sh",), {"who": "me"})
    assert [(layer.position, layer.blob_digest, layer.size_bytes) for layer in detail.layers] == [
        (position, layer.digest, layer.size) for position, layer in enumerate(there.layers)
    ]
    assert detail.chain_id == there.image.chain_id


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970-01-01T00:00:01Z", 1000.0),
        ("1970-01-01T00:00:01.123456789Z", 1123.456),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01T00:00:02", 2000.0),
        ("yesterday", None),
        (3, None),
        (None, None),
    ],
)
async def test_when_an_image_was_created(home: Home, text: object, milliseconds: float | None) -> None:
    image = make_image([layer_tar([Item("a", b"")])], created=text)
    await obtain(home, Registry(image))
    (one,) = Catalog(home).all()
    assert Catalog(home).info(one).created_at == milliseconds


async def test_shared_layers_are_counted_once(home: Home) -> None:
    one, two = demo("one"), demo("two")
    await obtain(home, Registry(one))
    await obtain(home, Registry(two), reference=OTHER)
    infos = [Catalog(home).info(image) for image in Catalog(home).all()]
    all_ = usage(home)
    shared = found(one).layers[0]
    assert all_.image_count == 2
    assert all_.size_bytes == sum(info.size_bytes for info in infos) - shared.size
    assert all_.size_bytes == sum(map(len, {**one.blobs, **two.blobs}.values()))
    assert all_.reclaimable_bytes == 0
    on_disk = BlobCache(home).path(shared.digest).stat().st_blocks * 512
    assert all_.disk_bytes == sum(info.disk_bytes for info in infos) - on_disk


async def test_removing_an_image_leaves_what_others_share(home: Home) -> None:
    await obtain(home, Registry(demo("two")), reference=OTHER)
    before = files_in(home)
    await obtain(home, Registry(demo("one")))
    assert removed(home) == (REFERENCE,)
    assert files_in(home) == before
    with pytest.raises(ImageNotFoundError, match="not in the cache"):
        removed(home)
    remove_image(home, OTHER, "other")
    assert files_in(home) == set()


async def test_one_of_two_names(home: Home) -> None:
    await obtain(home, Registry(demo("one")))
    await obtain(home, Registry(demo("one")), reference=OTHER)
    with leased(home) as lease:
        await lease.add([rootfs_key(found(demo("one")).image.chain_id)])
        assert removed(home) == (REFERENCE,)  # the other name is what the sandbox stands on now
        with pytest.raises(ImageInUseError):
            remove_image(home, OTHER, "other")
    assert usage(home).image_count == 1


async def test_a_running_sandbox_keeps_its_image(home: Home) -> None:
    image = await obtain(home, Registry(demo("one")))
    with leased(home) as lease:
        await lease.add([rootfs_key(image.chain_id)])
        with pytest.raises(ImageInUseError, match="running sandbox"):
            removed(home)
        assert prune(home, unused=True).images_removed == ()
        assert removed(home, force=True) == (REFERENCE,)
        assert squashfs_path(image.chain_id, home).exists()
        assert list(BlobCache(home).digests()) == []
    assert prune(home).rootfs_removed == 1
    assert files_in(home) == set()


async def test_a_sandbox_that_stays_keeps_its_image(home: Home) -> None:
    image = await obtain(home, Registry(demo("one")))
    folder = home.folder("sandboxes", "kept")
    pin(folder, RootFilesystem.of("demo", image, home))
    with pytest.raises(ImageInUseError, match="sandbox 'kept' stands on it"):
        removed(home)
    assert prune(home, unused=True).images_removed == ()
    assert removed(home, force=True) == (REFERENCE,)
    prune(home)
    assert squashfs_path(image.chain_id, home).exists()  # so that it can be started
    (folder / "image.json").unlink()
    prune(home)
    assert files_in(home) == set()


async def test_prune_removes_what_a_moved_tag_has_left(home: Home) -> None:
    await obtain(home, Registry(demo("two")), reference=OTHER)
    expected = files_in(home)
    await obtain(home, Registry(demo("one")))
    Records(home).discard(REFERENCE)
    (BlobCache(home).parts / ("a" * 64)).write_bytes(bytes(5000))
    loose = usage(home).reclaimable_bytes
    report = prune(home)
    assert (report.images_removed, report.blobs_removed, report.rootfs_removed) == ((), 3, 1)
    assert report.bytes_reclaimed == loose > 5000
    assert files_in(home) == expected
    assert prune(home).bytes_reclaimed == 0


async def test_prune_all_forgets_what_no_sandbox_stands_on(home: Home) -> None:
    await obtain(home, Registry(demo("one")))
    await obtain(home, Registry(demo("two")), reference=OTHER)
    assert prune(home, unused=True).images_removed == (REFERENCE, OTHER)
    assert files_in(home) == set()


async def test_prune_leaves_local_images_and_packed_folders(home: Home) -> None:
    write_layout(home.folder("images", "local") / "base", demo("base"))
    root = await prepare_rootfs("local/base", home)
    packed = squashfs_path("sha256:" + "f" * 64, home)
    packed.write_bytes(root.path.read_bytes())
    (home.folder("cache", "folders") / ("f" * 64)).touch()
    assert prune(home, unused=True).rootfs_removed == 0
    assert root.path.exists() and packed.exists()


async def test_what_is_leased_or_needed_is_not_swept(home: Home) -> None:
    image = await obtain(home, Registry(demo("one")))
    before = files_in(home)
    sweep(home, [found(demo("one")).manifest.digest], [image.chain_id])
    assert files_in(home) == before
    Records(home).discard(REFERENCE)
    layer = found(demo("one")).layers[0].digest
    with leased(home) as lease:
        await lease.add([blob_key(layer)])
        sweep(home)
        assert list(BlobCache(home).digests()) == [layer]


async def test_a_damaged_image_is_no_image_and_can_be_removed(home: Home) -> None:
    image = demo("one")
    await obtain(home, Registry(image))
    BlobCache(home).path(found(image).manifest.digest).write_bytes(b"{}")
    assert Catalog(home).all() == []
    with pytest.raises(ImageNotFoundError, match="damaged"):
        Catalog(home).find(REFERENCE, "demo")
    assert removed(home) == (REFERENCE,)
    assert files_in(home) == set()


@pytest.mark.parametrize("note", ["{", "[]", json.dumps({"chain_id": 3}), "\0"])
async def test_a_pin_that_cannot_be_read_keeps_nothing(home: Home, note: str) -> None:
    await obtain(home, Registry(demo("one")))
    Path(home.folder("sandboxes", "odd") / "image.json").write_text(note)
    assert removed(home) == (REFERENCE,)


async def test_prune_removes_what_is_of_no_use_to_anybody(home: Home) -> None:
    old, young = home.rootfs / ".x.squashfs.1234", home.rootfs / ".x.squashfs.5678"
    other = home.rootfs / f"{'0' * 64}.v0.squashfs"
    for path in (old, young, other):
        path.write_bytes(bytes(5000))
    os.utime(old, (1, 1))
    prune(home)
    assert [path.exists() for path in (old, young, other)] == [False, True, False]


# --- what sandboxes stand on


async def test_what_a_sandbox_stands_on_is_made_again_of_the_cache(home: Home) -> None:
    image = await obtain(home, Registry(demo("one")))
    folder = home.folder("sandboxes", "kept")
    pin(folder, RootFilesystem.of("demo", image, home))
    path = squashfs_path(image.chain_id, home)
    with leased(home) as lease:
        for _ in range(2):
            assert (await pinned(folder, home, lease)).path == path
            path.unlink(missing_ok=True)
        BlobCache(home).discard(image.layers[0].place)
        with pytest.raises(ImageNotFoundError, match="not in the cache any more"):
            await pinned(folder, home, lease)
