"""Small images made by hand: layers with Python's own tarfile (a second opinion), layouts and archives around them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.limits import DEFAULT_LIMITS, Limits
from trio_sandbox.image.merge import Contradicted, merge_layers
from trio_sandbox.image.oci import Layer, host_architecture
from trio_sandbox.image.progress import Meter

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@attrs.frozen
class Item:
    """One tar entry. `kind` is a type flag of tarfile."""

    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, str], ...] = ()


def folder(name: str, **options: Any) -> Item:
    return Item(name, kind=tarfile.DIRTYPE, **{"mode": 0o755, **options})


def symlink(name: str, target: str) -> Item:
    return Item(name, kind=tarfile.SYMTYPE, link=target, mode=0o777)


def hardlink(name: str, target: str) -> Item:
    return Item(name, kind=tarfile.LNKTYPE, link=target)


def layer_tar(items: Sequence[Item]) -> bytes:
    """The tar of a layer as tarfile writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for item in items:
            info = tarfile.TarInfo(item.name)
            info.type, info.mode, info.uid, info.gid, info.mtime = item.kind, item.mode, item.uid, item.gid, item.mtime
            info.linkname, info.size = item.link, len(item.data)
            info.devmajor, info.devminor = item.device
            info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in item.xattrs}
            archive.addfile(info, io.BytesIO(item.data))
    return out.getvalue()


def compress(data: bytes, compression: str) -> bytes:
    match compression:
        case "gzip":
            return gzip.compress(data, 1, mtime=0)
        case "zstd":
            return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout
        case _:
            return data


@attrs.define
class TestImage:
    """An image's blobs by digest, and the descriptor of its manifest."""

    __test__ = False

    blobs: dict[str, bytes] = attrs.field(factory=dict)
    index: list[dict[str, Any]] = attrs.field(factory=list)
    config_digest: str = ""
    layer_digests: list[str] = attrs.field(factory=list)

    def add(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.blobs[sha256(data)] = data
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}

    def add_json(self, document: Any, media_type: str) -> dict[str, Any]:
        return self.add(json.dumps(document).encode(), media_type)


def make_image(
    layers: Sequence[bytes],
    *,
    compression: str = "none",
    config: dict[str, Any] | None = None,
    architecture: str | None = None,
    tag: str | None = None,
    created: object = None,
    into: TestImage | None = None,
) -> TestImage:
    """An image of the given plain layer tars, alone or beside others in `into`."""
    image = into or TestImage()
    stored = [compress(layer, compression) for layer in layers]
    image.layer_digests = [sha256(data) for data in stored]
    suffix = "" if compression == "none" else f"+{compression}"
    document: dict[str, Any] = {
        "os": "linux",
        "architecture": architecture or host_architecture(),
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
    }
    if created is not None:
        document["created"] = created
    described = image.add_json(document, CONFIG)
    image.config_digest = described["digest"]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described,
        "layers": [image.add(data, LAYER + suffix) for data in stored],
    }
    entry = image.add_json(manifest, MANIFEST)
    if architecture:
        entry["platform"] = {"os": "linux", "architecture": architecture}
    if tag:
        entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    image.index.append(entry)
    return image


def layout_files(image: TestImage) -> dict[str, bytes]:
    """The files of an OCI layout by name, the index last."""
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        **{"blobs/" + digest.replace(":", "/"): data for digest, data in image.blobs.items()},
        "index.json": json.dumps({"schemaVersion": 2, "manifests": image.index}).encode(),
    }


def docker_files(image: TestImage, tags: Sequence[str] = ("demo:latest",)) -> dict[str, bytes]:
    """The members of what `docker save` writes."""
    names = [f"{digest.removeprefix('sha256:')}/layer.tar" for digest in image.layer_digests]
    config_name = image.config_digest.removeprefix("sha256:") + ".json"
    return {
        **{name: image.blobs[digest] for name, digest in zip(names, image.layer_digests, strict=True)},
        config_name: image.blobs[image.config_digest],
        "manifest.json": json.dumps([{"Config": config_name, "RepoTags": list(tags), "Layers": names}]).encode(),
    }


def write_layout(path: Path, image: TestImage) -> Path:
    for name, data in layout_files(image).items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path


def archive_bytes(files: dict[str, bytes]) -> bytes:
    return layer_tar([Item(name, data) for name, data in files.items()])


class Collector:
    """A sink in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self.data += data


def blob_of(path: Path, data: bytes) -> Blob:
    """A blob over a new file; the caller closes its descriptor."""
    path.write_bytes(data)
    return Blob(path.name, os.open(path, os.O_RDONLY), 0, len(data))


def merge(
    folder: Path, layers: Sequence[bytes], *, compression: str = "none", limits: Limits = DEFAULT_LIMITS
) -> bytes:
    """The merged tar of plain layer tars."""
    opened: list[Blob] = []
    try:
        described = []
        for number, layer in enumerate(layers):
            stored = compress(layer, compression)
            described.append(Layer(sha256(layer), sha256(stored), len(stored)))
            opened.append(blob_of(folder / f"layer-{number}", stored))
        blobs = dict(zip(described, opened, strict=True))
        sink = Collector()
        try:
            merge_layers(described, blobs.__getitem__, sink, Meter(threaded=False), limits)
        except Contradicted as found:
            sink = Collector()
            merge_layers(described, blobs.__getitem__, sink, Meter(threaded=False), limits, found.corrections)
        return bytes(sink.data)
    finally:
        for blob in opened:
            os.close(blob.descriptor)


def listing(data: bytes) -> dict[str, tarfile.TarInfo]:
    """The entries of a tar by name, read by tarfile; every name once."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
    entries = {member.name: member for member in members}
    assert len(entries) == len(members)
    return entries


def contents(data: bytes) -> dict[str, bytes]:
    """What every file name in a tar reads as, hard links followed."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {}
        for member in archive.getmembers():
            first = archive.getmember(member.linkname) if member.islnk() else member
            if first.isfile():
                file = archive.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
        return found
