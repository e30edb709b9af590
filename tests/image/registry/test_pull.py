"""Images out of a registry that nobody here wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.image.images import Item, TestImage, layer_tar, make_image
from tests.registries import LoopbackRegistry
from trio_sandbox.home import Home
from trio_sandbox.image.registry.access import RegistryAccess
from trio_sandbox.image.registry.fetch import fetch_blob
from trio_sandbox.image.registry.reference import RegistryReference
from trio_sandbox.image.registry.resolve import ResolvedImage, resolve_image

pytestmark = pytest.mark.anyio

LAYERS = [layer_tar([Item("a", b"1" * 500_000)]), layer_tar([Item("b", b"2" * 3)])]


def access_to(home: Path, registry: LoopbackRegistry) -> RegistryAccess:
    (home / "registries.toml").write_text(registry.settings())
    return RegistryAccess.load(Home(home))


async def fetched(resolved: ResolvedImage, reference: RegistryReference, access: RegistryAccess, folder: Path) -> None:
    for layer in resolved.layers:
        counts: list[int] = []
        part = folder / layer.hex
        await fetch_blob(reference, layer, part, access, counts.append)
        assert sum(counts) == part.stat().st_size == layer.size


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
async def test_an_image_of_two_layers(tmp_path: Path, registry: LoopbackRegistry, compression: str) -> None:
    image = make_image(LAYERS, compression=compression, config={"Env": ["A=1"]})
    registry.push(image, f"plain/{compression}:1", tmp_path / "layout")
    access = access_to(tmp_path, registry)
    reference = RegistryReference.parse(f"{registry.host}/plain/{compression}:1")
    resolved = await resolve_image(reference, access)
    assert resolved.manifest.digest == resolved.image.manifest_digest == image.index[0]["digest"]
    assert [layer.digest for layer in resolved.layers] == image.layer_digests
    assert resolved.image.config.env == ("A=1",)
    assert {digest: image.blobs[digest] for digest in (resolved.manifest.digest, image.config_digest)} == dict(
        resolved.documents
    )
    await fetched(resolved, reference, access, tmp_path)


async def test_the_platform_is_chosen_from_an_index(tmp_path: Path, registry: LoopbackRegistry) -> None:
    image = TestImage()
    for architecture in ("s390x", "amd64", "arm64", "riscv64"):
        make_image([layer_tar([Item(architecture)])], architecture=architecture, into=image)
    index = image.add_json({"schemaVersion": 2, "manifests": image.index}, "application/vnd.oci.image.index.v1+json")
    image.index = [index]
    registry.push(image, "platforms:1", tmp_path / "layout", multi_arch=True)
    reference = RegistryReference.parse(f"{registry.host}/platforms:1")
    resolved = await resolve_image(reference, access_to(tmp_path, registry))
    assert len(resolved.documents) == 3
    assert resolved.manifest.digest in resolved.documents
