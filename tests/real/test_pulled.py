"""Machines from a registry's image, as people make them: pulled on the way, pinned, and started again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.images import Item, TestImage, layer_tar, make_image
from tests.registries import HAS_REGISTRY, PASSWORD, USER, LoopbackRegistry, running_registry
from trio_sandbox import Image, ImageInUseError, RegistryAuth, Sandbox, SandboxConfig
from trio_sandbox.home import Home
from trio_sandbox.image.cache.keys import rootfs_key
from trio_sandbox.locks import held_if_free
from trio_sandbox.pull_event import ignore
from trio_sandbox.runtime import Runtime
from trio_sandbox.sandbox import _planned, claimed
from trio_sandbox.state.rows import Tenure

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not HAS_REGISTRY, reason="docker-registry, skopeo and openssl are not installed"),
]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LoopbackRegistry]:
    """A registry that wants to know who we are."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with running_registry(folder, basic=True) as running:
        yield running


@pytest.fixture
def own(home: Home, tmp_path: Path, registry: LoopbackRegistry) -> Home:
    """A data folder with the kernel of the other one, but no image."""
    own = tmp_path / "home"
    own.mkdir()
    for name in ("kernels", "initramfs", "host"):
        (own / name).symlink_to(home.root / name)
    (own / "registries.toml").write_text(registry.settings())
    return Home(own)


def base_with(home: Home, text: str) -> TestImage:
    """`local/base` with one more layer, which holds a file /note."""
    layout = home.images / "local" / "base"
    image = TestImage()
    for path in (layout / "blobs" / "sha256").iterdir():
        image.blobs[f"sha256:{path.name}"] = path.read_bytes()
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    manifest = json.loads(image.blobs[entry["digest"]])
    config = json.loads(image.blobs[manifest["config"]["digest"]])
    layer = image.add(layer_tar([Item("note", text.encode())]), "application/vnd.oci.image.layer.v1.tar")
    config["rootfs"]["diff_ids"].append(layer["digest"])
    manifest["layers"].append(layer)
    manifest["config"] = image.add_json(config, manifest["config"]["mediaType"])
    image.index = [image.add_json(manifest, entry["mediaType"])]
    return image


async def test_a_sandbox_is_pinned_to_what_its_tag_meant(
    home: Home, own: Home, registry: LoopbackRegistry, tmp_path: Path
) -> None:
    registry.push(base_with(home, "first\n"), "base:1", tmp_path / "first")
    name, auth = f"{registry.host}/base:1", RegistryAuth(USER, PASSWORD)
    told = []
    session = Sandbox.create_with_progress("pulled", image=name, registry_auth=auth, warm=False, home=own)
    async with session:
        async for event in session.progress:
            told.append(event.event_type)
        sandbox = await session.result()
    assert (told[0], told[-1]) == ("resolving", "complete")
    assert {"layer_download_complete", "layer_materialize_complete", "stitch_complete"} < set(told)
    assert (await sandbox.shell("cat /note")).stdout_text == "first\n"
    with pytest.raises(ImageInUseError, match="'pulled'"):
        await Image.remove(name, home=own)
    await sandbox.stop_and_wait()

    registry.push(make_image([layer_tar([Item("note", b"second\n")])]), "base:1", tmp_path / "second")
    before = await Image.get(name, home=own)
    assert (await Image.pull(name, registry_auth=auth, home=own)).manifest_digest != before.manifest_digest
    assert (await Image.prune(unused=True, home=own)).images_removed == (name,)
    async with await Sandbox.start("pulled", home=own) as again:
        assert (await again.shell("cat /note")).stdout_text == "first\n"
    assert (await Image.prune(home=own)).rootfs_removed == 1

    for path in own.root.rglob("*"):
        if path.is_file() and path.stat().st_size < 1 << 20:  # neither layers nor disks
            assert PASSWORD.encode() not in path.read_bytes(), path


async def test_what_a_machine_stands_on_is_in_use_for_its_life(home: Home) -> None:
    """Whatever kind of image it is, and although a sandbox that goes with its block writes nothing down."""
    runtime = Runtime(SandboxConfig(name="leasing", image="local/base"), None)
    async with claimed(runtime, home, Tenure.EPHEMERAL):
        async with _planned(runtime, home, Tenure.EPHEMERAL, (), ignore) as plan:
            assert plan.rootfs is not None
            key = rootfs_key(plan.rootfs.chain_id)
            with held_if_free(home, key) as is_free:
                assert not is_free
        with held_if_free(home, key) as is_free:
            assert is_free
