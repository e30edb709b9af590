"""Layouts and archives: choosing an image, checking what names what, and hostile or damaged files."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.image.images import (
    INDEX,
    Collector,
    Item,
    TestImage,
    archive_bytes,
    compress,
    docker_files,
    hardlink,
    layer_tar,
    layout_files,
    make_image,
    sha256,
    symlink,
    write_layout,
)
from trio_sandbox.errors import UnsupportedError
from trio_sandbox.home import Home
from trio_sandbox.image.archive import ArchiveStore
from trio_sandbox.image.blobs import Blob, ImageStore
from trio_sandbox.image.faults import ImageFault, NoSuchImage
from trio_sandbox.image.layout import LayoutStore
from trio_sandbox.image.merge import merge_layers
from trio_sandbox.image.oci import MAX_DOCUMENT_BYTES, Image, host_architecture
from trio_sandbox.image.progress import Meter

LAYERS = [layer_tar([Item("a", b"1")]), layer_tar([Item("b", b"2" * 3000)])]
METER = Meter(threaded=False)


@contextmanager
def layout(path: Path, image: TestImage, tag: str | None = None) -> Iterator[ImageStore]:
    with closing(LayoutStore.open(write_layout(path / "layout", image), tag)) as store:
        yield store


@contextmanager
def archive(path: Path, data: bytes, tag: str | None = None) -> Iterator[ImageStore]:
    (path / "image.tar").write_bytes(data)
    with closing(ArchiveStore.open(path / "image.tar", tag, Home(path / "home"), METER)) as store:
        yield store


def whole(blob: Blob) -> bytes:
    return blob.read_at(0, blob.size)


def check_both_layers(store: ImageStore) -> Image:
    image = store.image()
    assert [whole(store.layer(layer)) for layer in image.layers] == LAYERS
    assert [layer.diff_id for layer in image.layers] == [sha256(layer) for layer in LAYERS]
    return image


def test_layout(tmp_path: Path) -> None:
    with layout(tmp_path, make_image(LAYERS)) as store:
        image = check_both_layers(store)
    assert image.chain_id == sha256(f"{sha256(LAYERS[0])} {sha256(LAYERS[1])}".encode())


def test_the_chain_id_of_one_layer_is_its_diff_id(tmp_path: Path) -> None:
    with layout(tmp_path, make_image(LAYERS[:1])) as store:
        assert store.image().chain_id == sha256(LAYERS[0])


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_oci_archive(tmp_path: Path, compression: str) -> None:
    data = compress(archive_bytes(layout_files(make_image(LAYERS))), compression)
    with archive(tmp_path, data) as store:
        check_both_layers(store)
    assert list((tmp_path / "home" / "scratch").glob("*")) == []


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_docker_archive(tmp_path: Path, compression: str) -> None:
    image = make_image(LAYERS)
    with archive(tmp_path, compress(archive_bytes(docker_files(image)), compression)) as store:
        assert check_both_layers(store).manifest_digest == image.config_digest


def test_docker_archive_with_a_linked_layer(tmp_path: Path) -> None:
    files = docker_files(make_image([LAYERS[0], LAYERS[0]]))
    document = json.loads(files["manifest.json"])
    first = document[0]["Layers"][0]
    document[0]["Layers"][1:] = ["again/layer.tar"]
    for link in (symlink("again/layer.tar", f"../{first}"), hardlink("again/layer.tar", first)):
        items = [Item(name, data) for name, data in (files | {"manifest.json": json.dumps(document).encode()}).items()]
        with archive(tmp_path, layer_tar([*items, link])) as store:
            assert [whole(store.layer(layer)) for layer in store.image().layers] == [LAYERS[0]] * 2


def test_docker_archive_of_several_images(tmp_path: Path) -> None:
    files = docker_files(make_image(LAYERS), ["reg.example/a:1"]) | docker_files(make_image(LAYERS[:1]), ["b:2"])
    both = [json.loads(docker_files(make_image(part), [tag])["manifest.json"])[0] for part, tag in
            ((LAYERS, "reg.example/a:1"), (LAYERS[:1], "b:2"))]  # fmt: skip
    files["manifest.json"] = json.dumps(both).encode()
    for tag, layers in (("1", 2), ("reg.example/a:1", 2), ("2", 1)):
        with archive(tmp_path, archive_bytes(files), tag) as store:
            assert len(store.image().layers) == layers
    with archive(tmp_path, archive_bytes(files)) as store, pytest.raises(NoSuchImage, match="b:2"):
        store.image()


def test_the_platform_is_chosen(tmp_path: Path) -> None:
    image = make_image([LAYERS[1]], architecture="s390x")
    make_image([LAYERS[0]], architecture=host_architecture(), into=image)
    inner = image.add_json({"schemaVersion": 2, "manifests": image.index}, INDEX)
    for index in (image.index, [inner]):
        image.index = index
        with layout(tmp_path, image) as store:
            assert store.image().layers[0].diff_id == sha256(LAYERS[0])


def test_an_image_for_another_machine(tmp_path: Path) -> None:
    with layout(tmp_path, make_image(LAYERS, architecture="s390x")) as store, pytest.raises(NoSuchImage, match="s390x"):
        store.image()
    two = make_image(LAYERS, architecture="s390x")
    make_image(LAYERS, architecture="ppc64le", into=two)
    with layout(tmp_path, two) as store, pytest.raises(NoSuchImage, match="linux/ppc64le, linux/s390x"):
        store.image()


def test_tags(tmp_path: Path) -> None:
    image = make_image(LAYERS, tag="v1")
    make_image(LAYERS[:1], tag="v2", into=image)
    for tag, layers in (("v1", 2), ("v2", 1)):
        with layout(tmp_path, image, tag) as store:
            assert len(store.image().layers) == layers
    for wrong in (None, "v3"):
        with layout(tmp_path, image, wrong) as store, pytest.raises(NoSuchImage, match="v1, v2"):
            store.image()
    make_image(LAYERS[:1], tag="latest", into=image)
    with layout(tmp_path, image) as store:
        assert len(store.image().layers) == 1


def test_configuration(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "Env": ["A=1"],
        "Entrypoint": ["/run"],
        "Cmd": None,
        "WorkingDir": "/srv",
        "User": "app:app",
        "Labels": {"k": "v"},
        "StopSignal": "SIGINT",
        "ExposedPorts": {"80/tcp": {}},
    }
    with layout(tmp_path, make_image(LAYERS, config=config)) as store:
        found = store.image().config
    assert (found.env, found.entrypoint, found.cmd) == (("A=1",), ("/run",), ())
    assert (found.working_dir, found.user, found.labels, found.stop_signal) == ("/srv", "app:app", {"k": "v"}, "SIGINT")


# --- documents that lie


def tampered(name: str, change: Callable[[dict[str, Any]], object]) -> TestImage:
    """An image whose manifest, config or index was changed, with digests that agree again."""
    image = make_image(LAYERS)
    manifest = json.loads(image.blobs[image.index[0]["digest"]])
    config = json.loads(image.blobs[manifest["config"]["digest"]])
    if name == "config":
        change(config)
        manifest["config"] = image.add_json(config, manifest["config"]["mediaType"])
    if name == "manifest":
        change(manifest)
    image.index[0] |= image.add_json(manifest, image.index[0]["mediaType"])
    if name == "index":
        change(image.index[0])
    return image


@pytest.mark.parametrize(
    ("document", "change"),
    [
        ("manifest", lambda d: d.pop("layers")),
        ("manifest", lambda d: d.update(layers={})),
        ("manifest", lambda d: d.update(schemaVersion=1)),
        ("manifest", lambda d: d.update(manifests=[])),
        ("manifest", lambda d: d.update(mediaType=INDEX)),
        ("manifest", lambda d: d["layers"].pop()),
        ("manifest", lambda d: d["layers"][0].update(digest="sha256:../../../etc/passwd")),
        ("manifest", lambda d: d["layers"][0].update(digest="md5:" + "0" * 32)),
        ("manifest", lambda d: d["layers"][0].update(size=-1)),
        ("manifest", lambda d: d["layers"][0].update(size=True)),
        ("manifest", lambda d: d["layers"][0].update(size="5")),
        ("manifest", lambda d: d["layers"][0].update(size=5)),
        ("manifest", lambda d: d["layers"][0].update(digest="sha256:" + "0" * 64)),
        ("manifest", lambda d: d["config"].update(size=MAX_DOCUMENT_BYTES + 1)),
        ("manifest", lambda d: d["config"].update(size=1)),
        ("manifest", lambda d: d["config"].update(mediaType="application/vnd.example.artifact")),
        ("manifest", lambda d: d.update(config=None)),
        ("config", lambda d: d.pop("rootfs")),
        ("config", lambda d: d["rootfs"].update(diff_ids=[])),
        ("config", lambda d: d["rootfs"].update(diff_ids=["sha256:0"] * 2)),
        ("config", lambda d: d["rootfs"]["diff_ids"].append(sha256(b""))),
        ("config", lambda d: d["rootfs"].update(diff_ids=[sha256(b"")] * 5000)),
        ("config", lambda d: d.pop("architecture")),
        ("config", lambda d: d["config"].update(Env="A=1")),
        ("config", lambda d: d["config"].update(Cmd=[1])),
        ("config", lambda d: d["config"].update(Env=["A=\0"])),
        ("config", lambda d: d["config"].update(User=0)),
        ("config", lambda d: d["config"].update(Labels=["a"])),
        ("index", lambda d: d.update(digest="sha256:" + "1" * 64)),
        ("index", lambda d: d.update(size=d["size"] + 1)),
        ("index", lambda d: d.pop("mediaType")),
        ("index", lambda d: d.update(platform=[])),
    ],
)
def test_documents_that_lie(tmp_path: Path, document: str, change: Callable[[dict[str, Any]], object]) -> None:
    image = tampered(document, change)
    with layout(tmp_path, image) as store, pytest.raises(ImageFault):
        for layer in store.image().layers:
            store.layer(layer)


@pytest.mark.parametrize("kind", ["manifest", "layer"])
def test_types_of_a_later_version(tmp_path: Path, kind: str) -> None:
    if kind == "manifest":
        image = tampered(
            "index", lambda d: d.update(mediaType="application/vnd.docker.distribution.manifest.v1+prettyjws")
        )
    else:
        image = tampered(
            "manifest", lambda d: d["layers"][0].update(mediaType="application/vnd.oci.image.layer+encrypted")
        )
    with layout(tmp_path, image) as store, pytest.raises(UnsupportedError):
        store.image()


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"9" * 10_000, b'{"manifests": 1}'])
@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_documents_that_are_no_json(tmp_path: Path, name: str, data: bytes) -> None:
    files = layout_files(make_image(LAYERS)) | {name: data}
    with archive(tmp_path, archive_bytes(files)) as store, pytest.raises(ImageFault):
        store.image()


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"[1]", b'[{"Config": 1}]', b'[{"Config": "x.json", "Layers": []}]']
)
def test_docker_manifests_that_lie(tmp_path: Path, data: bytes) -> None:
    files = docker_files(make_image(LAYERS)) | {"manifest.json": data}
    with archive(tmp_path, archive_bytes(files)) as store, pytest.raises(ImageFault):
        store.image()


def test_a_docker_configuration_that_is_not_what_its_name_says(tmp_path: Path) -> None:
    image = make_image(LAYERS)
    files = docker_files(image)
    name = image.config_digest.removeprefix("sha256:") + ".json"
    files[name] = files[name].replace(b'"config": {}', b'"config": {"User": "0"}')
    with archive(tmp_path, archive_bytes(files)) as store, pytest.raises(ImageFault, match="damaged"):
        store.image()


# --- hostile folders


def test_links_in_a_layout_are_not_followed(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "layout", make_image(LAYERS))
    for name in ("index.json", "oci-layout", "blobs", "blobs/sha256", f"blobs/sha256/{sha256(LAYERS[1])[7:]}"):
        aside = tmp_path / "aside"
        (folder / name).rename(aside)
        (folder / name).symlink_to(aside)
        with closing(LayoutStore.open(folder, None)) as store, pytest.raises(ImageFault, match="link"):
            for layer in store.image().layers:
                store.layer(layer)
        (folder / name).unlink()
        aside.rename(folder / name)


def test_special_files_in_a_layout_do_not_hang(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "layout", make_image(LAYERS))
    for name in ("index.json", f"blobs/sha256/{sha256(LAYERS[1])[7:]}"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    with closing(LayoutStore.open(folder, None)) as store, pytest.raises(ImageFault, match="regular"):
        store.image()


def test_missing_parts_of_a_layout(tmp_path: Path) -> None:
    for name in layout_files(make_image(LAYERS)):
        folder = write_layout(tmp_path / "layout", make_image(LAYERS))
        (folder / name).unlink()
        with closing(LayoutStore.open(folder, None)) as store, pytest.raises(ImageFault, match="missing"):
            for layer in store.image().layers:
                store.layer(layer)


def test_a_store_closes_what_it_opened(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with layout(tmp_path, make_image(LAYERS)) as store:
        check_both_layers(store)
    with archive(tmp_path, gzip.compress(archive_bytes(docker_files(make_image(LAYERS))))) as store:
        check_both_layers(store)
    with pytest.raises(ImageFault), archive(tmp_path, gzip.compress(b"not a tar")):
        pass
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_archive_members_outside_are_inside(tmp_path: Path) -> None:
    """Names are normalised and links mean members, so nothing of the host can be read."""
    files = layout_files(make_image(LAYERS))
    index = files.pop("index.json")
    items = [Item("../" + name, data) for name, data in files.items()]
    with archive(tmp_path, layer_tar([*items, Item("/index.json", index)])) as store:
        check_both_layers(store)
    with archive(tmp_path, layer_tar([symlink("manifest.json", "/etc/passwd")])) as store:
        with pytest.raises(ImageFault, match="missing"):
            store.image()
    with archive(tmp_path, layer_tar([symlink("manifest.json", "manifest.json")])) as store:
        with pytest.raises(ImageFault, match="missing"):
            store.image()


@pytest.mark.parametrize("data", [b"", b"x", b"no archive at all" * 100, bytes(1024), b"\x1f\x8b", b"\x28\xb5\x2f\xfd"])
def test_files_that_are_no_archives(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ImageFault), archive(tmp_path, data) as store:
        store.image()


def test_an_archive_has_a_bounded_number_of_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_sandbox.image.archive.MAX_MEMBERS", 3)
    with pytest.raises(ImageFault, match="members"), archive(tmp_path, archive_bytes(docker_files(make_image(LAYERS)))):
        pass


# --- cuts and flipped bits


def take_everything(store: ImageStore) -> None:
    """Read the image as a build does, short of merging."""
    merge_layers(store.image().layers, store.layer, Collector(), METER)


ARCHIVES = {
    f"{kind}-{compression}": compress(archive_bytes(files), compression)
    for kind, files in (
        ("oci", layout_files(make_image(LAYERS, compression="gzip"))),
        ("docker", docker_files(make_image(LAYERS))),
    )
    for compression in ("none", "gzip", "zstd")
}


def content_end(data: bytes) -> int:
    """Where the last byte that matters of an archive is: after it, a plain tar holds only zeros."""
    return len(data) if data[257:262] != b"ustar" else len(data.rstrip(b"\0")) + 1


@pytest.mark.parametrize("name", [name for name in ARCHIVES if "zstd" not in name])
def test_an_archive_cut_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    data = ARCHIVES[name]
    end = content_end(data)
    for cut in sorted({*range(0, end, 61), *range(0, end, 512), end - 1}):
        with pytest.raises(ImageFault), archive(tmp_path, data[:cut]) as store:
            take_everything(store)


def test_a_zstd_archive_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = ARCHIVES["oci-zstd"]
    for cut in range(0, len(data), max(1, len(data) // 25)):
        with pytest.raises(ImageFault), archive(tmp_path, data[:cut]) as store:
            take_everything(store)


@pytest.mark.parametrize("name", [name for name in ARCHIVES if "zstd" not in name])
def test_a_flipped_bit_is_refused_or_harmless(tmp_path: Path, name: str) -> None:
    """Harmless: in a header field that the archive does not need, or in padding."""
    data = ARCHIVES[name]
    refused = 0
    places = range(0, content_end(data), 97)
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        try:
            with archive(tmp_path, bytes(damaged)) as store:
                take_everything(store)
        except (ImageFault, NoSuchImage, UnsupportedError):
            refused += 1
    assert refused > len(places) / 2


def test_gzip_of_several_members_and_zero_padding(tmp_path: Path) -> None:
    data = archive_bytes(docker_files(make_image(LAYERS)))
    parts = gzip.compress(data[:5000]) + bytes(700) + gzip.compress(data[5000:]) + bytes(70_000)
    with archive(tmp_path, parts) as store:
        check_both_layers(store)
    with pytest.raises(ImageFault, match="damaged"), archive(tmp_path, gzip.compress(data) + b"garbage" * 9):
        pass


def test_old_tar_formats_of_archives(tmp_path: Path) -> None:
    path = tmp_path / "old.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as out:
        for name, data in docker_files(make_image(LAYERS)).items():
            file = tmp_path / "member"
            file.write_bytes(data)
            out.add(file, name)
    with archive(tmp_path, path.read_bytes()) as store:
        check_both_layers(store)
