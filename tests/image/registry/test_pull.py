"""Images out of a registry that nobody here wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio

from tests.image.images import MANIFEST, Item, TestImage, layer_tar, make_image
from tests.image.registry.pulling import access, no_sockets_left, plainly
from tests.image.registry.servers import Fault, faulty
from tests.registries import LoopbackRegistry
from trio_sandbox.errors import ImageNotFoundError, InvalidImageError, UnsupportedError
from trio_sandbox.image.oci import host_architecture
from trio_sandbox.image.registry.access import RegistryAccess
from trio_sandbox.image.registry.fetch import fetch_blob
from trio_sandbox.image.registry.reference import RegistryReference
from trio_sandbox.image.registry.resolve import ResolvedImage, resolve_image

pytestmark = pytest.mark.anyio

LAYERS = [layer_tar([Item("a", b"1" * 500_000)]), layer_tar([Item("b", b"2" * 3)])]


def access_to(home: Path, registry: LoopbackRegistry) -> RegistryAccess:
    return access(home, registry.settings())


async def fetched(resolved: ResolvedImage, reference: RegistryReference, way: RegistryAccess, folder: Path) -> None:
    for layer in resolved.layers:
        counts: list[int] = []
        part = folder / layer.hex
        await fetch_blob(reference, layer, part, way, counts.append)
        assert sum(counts) == part.stat().st_size == layer.size


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
async def test_an_image_of_two_layers(tmp_path: Path, registry: LoopbackRegistry, compression: str) -> None:
    image = make_image(LAYERS, compression=compression, config={"Env": ["A=1"]})
    registry.push(image, f"plain/{compression}:1", tmp_path / "layout")
    way = access_to(tmp_path, registry)
    reference = RegistryReference.parse(f"{registry.host}/plain/{compression}:1")
    resolved = await resolve_image(reference, way)
    assert resolved.manifest.digest == resolved.image.manifest_digest == image.index[0]["digest"]
    assert [layer.digest for layer in resolved.layers] == image.layer_digests
    assert resolved.image.config.env == ("A=1",)
    assert {digest: image.blobs[digest] for digest in (resolved.manifest.digest, image.config_digest)} == dict(
        resolved.documents
    )
    await fetched(resolved, reference, way, tmp_path)


async def test_layers_at_once(tmp_path: Path, registry: LoopbackRegistry) -> None:
    image = make_image([layer_tar([Item(str(number), os.urandom(300_000))]) for number in range(9)], compression="gzip")
    registry.push(image, "many:1", tmp_path / "layout")
    way = access_to(tmp_path, registry)
    reference = RegistryReference.parse(f"{registry.host}/many:1")
    with no_sockets_left(registry.host):
        resolved = await resolve_image(reference, way)
        async with trio.open_nursery() as nursery:
            for layer in resolved.layers:
                nursery.start_soon(fetch_blob, reference, layer, tmp_path / layer.hex, way, lambda _: None)
    for layer in resolved.layers:
        assert (tmp_path / layer.hex).read_bytes() == image.blobs[layer.digest]


@pytest.mark.parametrize("kind", ["v2s2", "oci"])
@pytest.mark.parametrize("many", [False, True])
async def test_both_kinds_of_documents(tmp_path: Path, registry: LoopbackRegistry, kind: str, many: bool) -> None:
    image = TestImage()
    for architecture in (host_architecture(), "s390x") if many else (host_architecture(),):
        make_image(LAYERS, compression="gzip", architecture=architecture, into=image)
    if many:
        index = {"schemaVersion": 2, "manifests": image.index}
        image.index = [image.add_json(index, "application/vnd.oci.image.index.v1+json")]
    registry.push(image, f"{kind}/{many}:1".lower(), tmp_path / "layout", "--format", kind, multi_arch=many)
    reference = RegistryReference.parse(f"{registry.host}/{kind}/{many}:1".lower())
    resolved = await resolve_image(reference, access_to(tmp_path, registry))
    assert ("docker" in resolved.manifest.media_type) is (kind == "v2s2")
    assert [layer.digest for layer in resolved.layers] == image.layer_digests
    assert len(resolved.documents) == (3 if many else 2)


async def test_an_artifact_is_no_image(tmp_path: Path, registry: LoopbackRegistry) -> None:
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.test+json", "digest": "sha256:" + "0" * 64, "size": 2},
        "layers": [],
    }
    fault = Fault(
        "/manifests/", times=2, status=200, body=json.dumps(manifest).encode(), headers={"Content-Type": MANIFEST}
    )
    with faulty(registry.host, fault) as (host, _), pytest.raises(InvalidImageError, match="no container image"):
        await resolve_image(RegistryReference.parse(f"{host}/x:1"), access(tmp_path, plainly(host)))


@pytest.mark.parametrize(
    ("told", "body"),
    [
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", b"{}"),
        ("application/json", b'{"schemaVersion": 1}'),
    ],
)
async def test_the_first_schema(tmp_path: Path, registry: LoopbackRegistry, told: str, body: bytes) -> None:
    fault = Fault("/manifests/", times=2, status=200, body=body, headers={"Content-Type": told})
    with faulty(registry.host, fault) as (host, _), pytest.raises(UnsupportedError, match="first schema"):
        await resolve_image(RegistryReference.parse(f"{host}/x:1"), access(tmp_path, plainly(host)))


@pytest.mark.parametrize("told", ["text/plain; charset=utf-8", "application/json", MANIFEST + "; charset=utf-8"])
async def test_a_registry_that_does_not_say_what_it_sends(
    tmp_path: Path, registry: LoopbackRegistry, told: str
) -> None:
    image = make_image(LAYERS)
    registry.push(image, "untold:1", tmp_path / "layout")
    with faulty(registry.host, Fault("/manifests/", headers={"Content-Type": told})) as (host, _):
        resolved = await resolve_image(RegistryReference.parse(f"{host}/untold:1"), access(tmp_path, plainly(host)))
    assert resolved.manifest.media_type == MANIFEST


async def test_nothing_for_this_machine(tmp_path: Path, registry: LoopbackRegistry) -> None:
    registry.push(make_image(LAYERS, architecture="s390x"), "other:1", tmp_path / "layout")
    with pytest.raises(ImageNotFoundError, match="s390x"):
        await resolve_image(RegistryReference.parse(f"{registry.host}/other:1"), access_to(tmp_path, registry))


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
