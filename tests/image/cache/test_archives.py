"""Archives into the cache and out of it, with skopeo as a second reader and writer."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import trio

from tests.image.cache.remotes import REFERENCE, Events, Registry, found, obtain
from tests.image.images import (
    Item,
    TestImage,
    archive_bytes,
    docker_files,
    layer_tar,
    layout_files,
    make_image,
)
from trio_sandbox.errors import ImageNotFoundError, InvalidConfigError, InvalidImageError
from trio_sandbox.home import Home
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.cache.catalog import Catalog
from trio_sandbox.image.cache.collect import prune
from trio_sandbox.image.cache.records import Records
from trio_sandbox.image.cache.work import load, save
from trio_sandbox.image.squashfs import is_sound, squashfs_path

pytestmark = pytest.mark.anyio

LAYERS = [layer_tar([Item("a", b"one" * 1000)]), layer_tar([Item("b", b"two")])]
NAME = "registry.test/demo:1"


@pytest.fixture
def other(tmp_path: Path) -> Home:
    return Home(tmp_path / "other")


def plain(compression: str = "gzip", tag: str | None = None) -> TestImage:
    return make_image(LAYERS, compression=compression, config={"Env": ["A=1"]}, tag=tag)


def write(path: Path, files: dict[str, bytes]) -> Path:
    path.write_bytes(archive_bytes(files))
    return path


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


async def test_what_is_saved_is_loaded_again(home: Home, other: Home, tmp_path: Path) -> None:
    image = await obtain(home, Registry(plain()))
    archive = tmp_path / "image.tar"
    assert await save([REFERENCE], home, archive) == [REFERENCE]
    events = Events()
    assert await load(archive, other, on_pull=events) == [REFERENCE]
    assert "stitch_complete" in events.types()
    (loaded,) = Catalog(other).all()
    assert loaded.contents.image == image
    assert is_sound(squashfs_path(image.chain_id, other))
    again = tmp_path / "again.tar"
    await save([REFERENCE], other, again)
    assert again.read_bytes() == archive.read_bytes()


async def test_an_archive_tells_nothing_of_this_machine(home: Home, tmp_path: Path) -> None:
    await obtain(home, Registry(plain()))
    archive = tmp_path / "image.tar"
    await save([REFERENCE], home, archive)
    with tarfile.open(archive) as opened:
        assert {(item.uid, item.gid, item.mtime, item.uname, item.mode) for item in opened} == {(0, 0, 0, "", 0o644)}
    assert archive.stat().st_mode & 0o777 == 0o644
    assert list(home.scratch.iterdir()) == []


async def test_several_images_in_one_archive_share_their_layers(home: Home, other: Home, tmp_path: Path) -> None:
    await obtain(home, Registry(plain()))
    second = make_image([LAYERS[0]], compression="gzip")
    await obtain(home, Registry(second), reference="registry.test/library/two:1")
    archive = tmp_path / "both.tar"
    await save([REFERENCE, "registry.test/library/two:1", REFERENCE], home, archive)
    assert len(members(archive)) == 2 + 7 - 1  # two images of 7 blobs, one of them the same
    assert await load(archive, other) == [REFERENCE, "registry.test/library/two:1"]
    with pytest.raises(InvalidConfigError, match="holds 2 images"):
        await load(archive, other, name="mine")


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
async def test_a_docker_archive_gets_a_manifest(home: Home, other: Home, tmp_path: Path, compression: str) -> None:
    archive = write(tmp_path / "docker.tar", docker_files(plain(compression), [NAME, "registry.test/demo:2"]))
    assert await load(archive, home) == [NAME, "registry.test/demo:2"]
    one, two = Catalog(home).all()
    assert one.contents == two.contents
    assert [layer.diff_id for layer in one.contents.image.layers] == [
        layer.diff_id for layer in found(plain()).image.layers
    ]
    assert one.contents.image.config.env == ("A=1",)
    packed = tmp_path / "docker.tar.gz"
    packed.write_bytes(gzip.compress(archive.read_bytes()))
    assert await load(packed, other, name="mine") == ["docker.io/library/mine:latest"]
    assert Catalog(other).all()[0].contents == one.contents  # the manifest is always the same
    assert prune(home).blobs_removed == 0


@pytest.mark.parametrize("tag", [None, "1"])
async def test_an_archive_that_does_not_name_its_image(home: Home, tmp_path: Path, tag: str | None) -> None:
    archive = write(tmp_path / "image.tar", layout_files(plain(tag=tag)))
    with pytest.raises(InvalidConfigError, match="name: required"):
        await load(archive, home)
    assert list(BlobCache(home).digests()) == []
    assert await load(archive, home, name=NAME) == [NAME]


async def test_images_for_other_machines_are_left_out(home: Home, tmp_path: Path) -> None:
    image = make_image(LAYERS, architecture="mips", tag=NAME)
    with pytest.raises(ImageNotFoundError, match="mips"):
        await load(write(tmp_path / "mips.tar", layout_files(image)), home)
    make_image(LAYERS, tag=NAME, into=image)
    assert await load(write(tmp_path / "both.tar", layout_files(image)), home) == [NAME]


@pytest.mark.parametrize("kind", ["oci", "docker"])
async def test_a_damaged_archive_gets_no_name(home: Home, tmp_path: Path, kind: str) -> None:
    image = plain("none", NAME)
    files = layout_files(image) if kind == "oci" else docker_files(image, [NAME])
    (name,) = [name for name, data in files.items() if data == LAYERS[1]]
    files[name] = LAYERS[1].replace(b"two", b"too")
    with pytest.raises(InvalidImageError):
        await load(write(tmp_path / "bad.tar", files), home)
    assert Records(home).all() == []
    assert prune(home).blobs_removed > 0
    assert list(BlobCache(home).digests()) == []


@pytest.mark.parametrize(("name", "error"), [("missing.tar", ImageNotFoundError), ("text.tar", InvalidImageError)])
async def test_what_is_no_archive(home: Home, tmp_path: Path, name: str, error: type[Exception]) -> None:
    (tmp_path / "text.tar").write_bytes(b"text" * 1000)
    with pytest.raises(error):
        await load(tmp_path / name, home)


async def test_a_damaged_layer_is_not_saved(home: Home, tmp_path: Path) -> None:
    await obtain(home, Registry(plain("none")))
    path = BlobCache(home).path(found(plain("none")).layers[0].digest)
    path.write_bytes(path.read_bytes().replace(b"one", b"two", 1))
    target = tmp_path / "image.tar"
    target.write_bytes(b"old")
    with pytest.raises(ImageNotFoundError, match="damaged; pull it again"):
        await save([REFERENCE], home, target)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["image.tar"]


async def test_where_an_archive_cannot_be(home: Home, tmp_path: Path) -> None:
    await obtain(home, Registry(plain()))
    with pytest.raises(InvalidConfigError, match="no folder"):
        await save([REFERENCE], home, tmp_path / "missing" / "image.tar")
    with pytest.raises(InvalidConfigError, match="is a folder"):
        await save([REFERENCE], home, tmp_path)
    with pytest.raises(ImageNotFoundError, match="not in the cache"):
        await save(["nothing"], home, tmp_path / "image.tar")


# --- a second opinion

SKOPEO = shutil.which("skopeo")


def skopeo(*words: str) -> bytes:
    assert SKOPEO is not None
    return subprocess.run([SKOPEO, "--insecure-policy", *words], check=True, capture_output=True).stdout


@pytest.mark.skipif(SKOPEO is None, reason="skopeo is not installed")
async def test_skopeo_reads_what_is_saved(home: Home, tmp_path: Path) -> None:
    image = await obtain(home, Registry(plain()))
    archive = tmp_path / "image.tar"
    await save([REFERENCE], home, archive)
    for name in (str(archive), f"{archive}:{REFERENCE}"):
        seen = json.loads(await trio.to_thread.run_sync(skopeo, "inspect", f"oci-archive:{name}"))
        assert seen["Digest"] == image.manifest_digest
        assert seen["Env"] == ["A=1"]


@pytest.mark.skipif(SKOPEO is None, reason="skopeo is not installed")
@pytest.mark.parametrize("transport", ["oci-archive", "docker-archive"])
async def test_what_skopeo_writes_is_loaded(home: Home, other: Home, tmp_path: Path, transport: str) -> None:
    image = await obtain(home, Registry(plain()))
    saved, made = tmp_path / "saved.tar", tmp_path / "made.tar"
    await save([REFERENCE], home, saved)
    await trio.to_thread.run_sync(skopeo, "copy", f"oci-archive:{saved}", f"{transport}:{made}:{NAME}")
    assert await load(made, other) == [NAME]
    assert Catalog(other).all()[0].chain_id == image.chain_id
