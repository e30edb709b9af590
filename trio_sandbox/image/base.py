"""The default image `local/base`: a small Debian or Ubuntu with Python, built from the host's own package sources.

It becomes an ordinary OCI layout in Home.images. Blobs are published under their digests and `index.json` last, in
one step: a build that is killed leaves the old image, or none.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import trio

from trio_sandbox.exclusive import exclusively
from trio_sandbox.files import anonymous_file, publish, publish_bytes, storage_errors
from trio_sandbox.home import Home
from trio_sandbox.image.apt_sources import host_sources
from trio_sandbox.image.bootstrap import write_base_tar
from trio_sandbox.image.faults import ImageFault, NoSuchImage
from trio_sandbox.image.layout import INDEX_FILE, LAYOUT_FILE, LAYOUT_VERSION, LayoutStore
from trio_sandbox.image.oci import REF_NAME, digest_of, host_architecture
from trio_sandbox.image.progress import Meter, Progress
from trio_sandbox.image.reference import local_image_folder

BASE_IMAGE = "local/base"
ENV = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8")
CMD = ("bash",)

MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_LAYER = "application/vnd.oci.image.layer.v1.tar"
"""Uncompressed: built once and read once per pipeline version, on this machine only."""


def base_image_present(home: Home) -> bool:
    """Whether `local/base` is there and complete. Reads a few kilobytes, and checks no layer's bytes."""
    try:
        with closing(LayoutStore.open(_folder(home), None)) as store:
            for layer in store.image().layers:
                store.layer(layer)
    except (OSError, ImageFault, NoSuchImage):
        return False
    return True


async def build_base_image(home: Home, *, progress: Progress | None = None) -> None:
    """Build `local/base` anew, in about half a minute. Needs mmdebstrap, apt and a package mirror within reach.

    One build at a time per home. Cancellation, or the death of this process, leaves the old image or none. Raises
    HostNotReadyError, ToolError (mmdebstrap failed: its words are in the message), StorageError.
    """
    steps = 0

    def report(step: str) -> None:
        nonlocal steps
        steps += 1
        if progress is not None:
            progress(f"building {BASE_IMAGE}: {step}", steps, None)

    async with exclusively(home, BASE_IMAGE):
        sources = await host_sources()
        folder = _folder(home)
        blobs = home.folder(*folder.relative_to(home.root).parts, "blobs", "sha256")
        target = anonymous_file(blobs)
        try:
            await write_base_tar(sources, target, home, report)
            report("storing the layer")
            digest, size = await trio.to_thread.run_sync(_hash_file, target, Meter())
            await trio.to_thread.run_sync(_store, folder, blobs, target, digest, size)
        finally:
            os.close(target)


def _folder(home: Home) -> Path:
    return local_image_folder("base", home)


def _hash_file(descriptor: int, meter: Meter) -> tuple[str, int]:
    hasher = hashlib.sha256()
    offset = 0
    while data := os.pread(descriptor, 1 << 20, offset):
        hasher.update(data)
        offset += len(data)
        meter.add(len(data))
    return hasher.hexdigest(), offset


def _is_intact(blob: Path, digest: str) -> bool:
    try:
        with blob.open("rb") as file:
            return _hash_file(file.fileno(), Meter())[0] == digest
    except FileNotFoundError:
        return False


def _store(folder: Path, blobs: Path, layer: int, digest: str, size: int) -> None:
    """Publish the layer, then what names it, the index last; then drop what the new index does not name."""
    if not _is_intact(blobs / digest, digest):
        publish(layer, blobs / digest)
    config = {
        "architecture": host_architecture(),
        "os": "linux",
        "config": {"Env": list(ENV), "Cmd": list(CMD)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "config": _store_document(blobs, config, MEDIA_CONFIG),
        "layers": [{"mediaType": MEDIA_LAYER, "digest": f"sha256:{digest}", "size": size}],
    }
    entry = _store_document(blobs, manifest, MEDIA_MANIFEST)
    index = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": [entry | {"annotations": {REF_NAME: "latest"}}]}
    publish_bytes(folder / LAYOUT_FILE, json.dumps({"imageLayoutVersion": LAYOUT_VERSION}).encode())
    publish_bytes(folder / INDEX_FILE, json.dumps(index).encode())
    named = {digest, *(part["digest"].removeprefix("sha256:") for part in (entry, manifest["config"]))}
    _drop_others(folder, blobs, named)


def _store_document(blobs: Path, document: dict[str, Any], media_type: str) -> dict[str, Any]:
    data = json.dumps(document, sort_keys=True).encode()
    digest = digest_of(data)
    publish_bytes(blobs / digest.removeprefix("sha256:"), data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _drop_others(folder: Path, blobs: Path, named: set[str]) -> None:
    """Remove the old image's blobs, and second names that a kill in the middle of a replacement left."""
    with storage_errors(folder):
        for path in (*blobs.iterdir(), *folder.glob(".*.????????")):
            if path.name not in named:
                with suppress(FileNotFoundError):
                    path.unlink()
