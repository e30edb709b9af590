"""What a sandbox from a snapshot stands on: the layers that the disk was written on, wherever they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.images import Item, TestImage, layer_tar, make_image
from tests.registries import HAS_REGISTRY, PASSWORD, USER, LoopbackRegistry, running_registry
from tests.snapshot.stopped import DISK_SIZE, files_in, stopped
from trio_sandbox import Image, RegistryAuth
from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import ImageNotFoundError, SnapshotError
from trio_sandbox.home import Home
from trio_sandbox.image.cache.leases import leased
from trio_sandbox.image.pin import NOTE, Pin
from trio_sandbox.image.rootfs import RootFilesystem
from trio_sandbox.pull_event import ignore
from trio_sandbox.snapshot.create import create
from trio_sandbox.snapshot.description import DISK_FILE
from trio_sandbox.snapshot.root import prepare_snapshot

pytestmark = pytest.mark.anyio


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LoopbackRegistry]:
    """A registry that wants to know who we are."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with running_registry(folder, basic=True) as running:
        yield running


@pytest.fixture
def other(tmp_path: Path, registry: LoopbackRegistry) -> Home:
    """Another machine, on which nothing has been pulled."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "registries.toml").write_text(registry.settings())
    return Home(tmp_path / "other")


def image(text: str) -> TestImage:
    return make_image([layer_tar([Item("note", text.encode())])], config={"Env": [f"A={text}"]})


async def kept(home: Home, registry: LoopbackRegistry, tmp_path: Path, settings: str) -> Path:
    """A snapshot of a sandbox on an image of the registry, whose tag means another image by now."""
    registry.push(image("first"), "demo:1", tmp_path / "first")
    (home.root / "registries.toml").write_text(settings)
    name = f"{registry.host}/demo:1"
    await Image.pull(name, registry_auth=RegistryAuth(USER, PASSWORD), home=home)
    detail = await Image.inspect(name, home=home)
    note = stopped(home).parent / NOTE
    plain = Pin.from_plain(json.loads(note.read_text())).to_plain()
    note.write_text(
        json.dumps(
            plain | {"reference": name, "chain_id": detail.chain_id, "manifest_digest": detail.info.manifest_digest}
        )
    )
    registry.push(image("second"), "demo:1", tmp_path / "second")
    return create("built", "one", home, folder=tmp_path).path


async def prepared(snapshot: Path, home: Home, **options: object) -> RootFilesystem:
    config = SandboxConfig(name="two", snapshot=snapshot, **options)  # type: ignore[arg-type]
    with leased(home) as lease:
        rootfs, disk = await prepare_snapshot(config, home, lease, ignore)
        assert os.fstat(disk).st_size == DISK_SIZE
        os.close(disk)
        return rootfs


@pytest.mark.skipif(not HAS_REGISTRY, reason="docker-registry, skopeo and openssl are not installed")
async def test_it_is_pulled_by_its_digest_where_it_is_missing(
    home: Home, other: Home, registry: LoopbackRegistry, tmp_path: Path
) -> None:
    home.folder("run")
    snapshot = await kept(home, registry, tmp_path, registry.settings())
    before = files_in(other.root)
    with pytest.raises(ImageNotFoundError, match="with_image"):
        await prepared(snapshot, other, pull_policy="never")
    with pytest.raises(ImageNotFoundError, match="with_image"):  # nobody in particular
        await prepared(snapshot, other)
    assert [name for name in files_in(other.root) if name.endswith(".squashfs")] == [] and before
    rootfs = await prepared(snapshot, other, registry_auth=RegistryAuth(USER, PASSWORD))
    here = await prepared(snapshot, home, pull_policy="never")
    assert (rootfs.chain_id, rootfs.config) == (here.chain_id, here.config)
    assert rootfs.path.exists() and rootfs.path != here.path
    assert (await prepared(snapshot, other, pull_policy="never")) == rootfs


async def test_a_snapshot_that_was_cut_is_refused_at_once(home: Home, one: str) -> None:
    snapshot = create("built", one, home).path
    os.truncate(snapshot / DISK_FILE, 10)
    with pytest.raises(SnapshotError, match="10 bytes instead of"):
        await prepared(snapshot, home)
