"""The documents of an OCI image: index, manifest, configuration. Pure: it asks a callable for bytes and checks them.

Rules: a document is used only after its size and its sha256 agree with the descriptor that named it. Every field that
is used is checked for its type. OCI v1 and Docker schema 2 are read alike. What is wrong raises ImageFault, and an
image that has nothing for this machine or tag raises NoSuchImage.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from trio_sandbox.errors import UnsupportedError
from trio_sandbox.image.faults import ImageFault, NoSuchImage
from trio_sandbox.image.limits import DEFAULT_LIMITS, MIB

MAX_DOCUMENT_BYTES = 4 * MIB
"""Of an index, a manifest or a configuration."""

MAX_INDEX_DEPTH = 4
"""Indexes inside indexes."""

MAX_MANIFESTS = 4096
"""Entries of one index."""

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
CONFIG_TYPES = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
LAYER_TYPES = frozenset(
    [
        *(f"application/vnd.oci.image.layer.v1.tar{end}" for end in ("", "+gzip", "+zstd")),
        *(f"application/vnd.oci.image.layer.nondistributable.v1.tar{end}" for end in ("", "+gzip", "+zstd")),
        *(f"application/vnd.docker.image.rootfs.diff.tar{end}" for end in ("", ".gzip", ".zstd")),
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ]
)
REF_NAME = "org.opencontainers.image.ref.name"
"""Annotation of an index entry: a tag, or by some programs the whole name."""
NAME_ANNOTATION = "io.containerd.image.name"
"""The same, always the whole name."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x"}


def host_architecture() -> str:
    """This machine's architecture by the OCI's names (amd64, arm64, …)."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


@attrs.frozen
class Descriptor:
    """What an OCI document says about another blob."""

    media_type: str
    digest: str
    size: int
    ref_name: str | None = None
    platform: str | None = None
    """`os/architecture`, or None where the document does not say."""
    image_name: str | None = None
    """The whole name of the image, where an archive gives it."""

    @property
    def hex(self) -> str:
        return self.digest.removeprefix("sha256:")


@attrs.frozen
class ImageConfig:
    """The part of an image's configuration that decides how its programs run. Empty where the image says nothing."""

    env: tuple[str, ...] = ()
    """`NAME=value`."""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    stop_signal: str = ""


@attrs.frozen
class Layer:
    """One layer: what its uncompressed bytes hash to, and where the stored bytes are."""

    diff_id: str
    place: str
    """The stored blob's digest, or the member of a Docker archive, which names its layers by path."""
    size: int | None
    """Stored bytes; None in a Docker archive."""


@attrs.frozen
class Image:
    """An image for this machine, pinned."""

    manifest_digest: str
    """For a Docker archive, which has no manifest, the digest of its configuration: Docker's image id."""
    config: ImageConfig
    layers: tuple[Layer, ...]

    @property
    def chain_id(self) -> str:
        """The OCI chain id of all layers: equal for images whose root file systems are equal, layer by layer."""
        chain = ""
        for layer in self.layers:
            chain = digest_of(f"{chain} {layer.diff_id}".encode()) if chain else layer.diff_id
        return chain


def is_digest(value: object) -> bool:
    """Whether `value` is a sha256 digest as the OCI writes it."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def resolve(root: Descriptor, read: Callable[[Descriptor], bytes], *, architecture: str | None = None) -> Image:
    """Follow `root` (an index or a manifest) to the image for linux on this machine.

    `read` returns the bytes of a blob; they are checked here. Raises ImageFault, NoSuchImage, UnsupportedError.
    """
    architecture = architecture or host_architecture()
    root = find_manifest(root, read, architecture)
    config_descriptor, layers = parse_manifest(read_verified(root, read), root.media_type)
    config, diff_ids = parse_config(read_verified(config_descriptor, read), architecture)
    if len(diff_ids) != len(layers):
        raise ImageFault(f"the manifest has {len(layers)} layers, but the configuration {len(diff_ids)} diff_ids")
    return Image(
        root.digest,
        config,
        tuple(Layer(diff_id, layer.digest, layer.size) for diff_id, layer in zip(diff_ids, layers, strict=True)),
    )


def find_manifest(root: Descriptor, read: Callable[[Descriptor], bytes], architecture: str) -> Descriptor:
    """The manifest for linux on `architecture` that `root` (an index or a manifest) leads to. Raises as `resolve`."""
    for _ in range(MAX_INDEX_DEPTH):
        if root.media_type not in INDEX_TYPES:
            break
        root = choose_platform(parse_index(read_verified(root, read)), architecture)
    else:
        raise ImageFault(f"more than {MAX_INDEX_DEPTH} indexes inside each other")
    if root.media_type not in MANIFEST_TYPES:
        raise UnsupportedError(f"an image of type {root.media_type!r}", "use an OCI v1 or Docker schema 2 image")
    return root


def read_verified(descriptor: Descriptor, read: Callable[[Descriptor], bytes]) -> bytes:
    """The bytes of a document that `descriptor` names, refused when they are too many or not the named ones."""
    if descriptor.size > MAX_DOCUMENT_BYTES:
        raise ImageFault(f"{descriptor.digest} has {descriptor.size} bytes; {MAX_DOCUMENT_BYTES} are allowed")
    data = read(descriptor)
    if len(data) != descriptor.size:
        raise ImageFault(f"blob {descriptor.digest} has {len(data)} bytes instead of {descriptor.size}")
    if digest_of(data) != descriptor.digest:
        raise ImageFault(f"blob {descriptor.digest} is damaged: its bytes hash to {digest_of(data)}")
    return data


def parse_index(data: bytes) -> tuple[Descriptor, ...]:
    """The manifests that an index lists."""
    document = parse_object(data, "the index")
    _refuse_keys(document, ("layers", "config", "fsLayers"), "the index")
    entries = _items(document, "manifests", "the index")
    if len(entries) > MAX_MANIFESTS:
        raise ImageFault(f"the index lists {len(entries)} manifests; {MAX_MANIFESTS} are allowed")
    return tuple(_descriptor(entry, f"manifest {number} of the index") for number, entry in enumerate(entries))


def choose_tag(manifests: Sequence[Descriptor], tag: str | None) -> Descriptor | None:
    """The entry of a layout's top index that `tag` means; None when the choice is one of platform alone."""
    names = sorted({manifest.ref_name for manifest in manifests if manifest.ref_name is not None})
    if tag is not None:
        for manifest in manifests:
            if manifest.ref_name is not None and tag in (manifest.ref_name, manifest.ref_name.rpartition(":")[2]):
                return manifest
        raise NoSuchImage(f"it has no tag {tag!r}; it has: {', '.join(names) or 'no tags'}")
    if len(manifests) == 1:
        return manifests[0]
    if "latest" in names:
        return choose_tag(manifests, "latest")
    if len(names) > 1:
        raise NoSuchImage(f"it holds several images; add one of these as :TAG to the path: {', '.join(names)}")
    return None


def choose_platform(manifests: Sequence[Descriptor], architecture: str) -> Descriptor:
    """The first entry for linux on `architecture`; an entry that names no platform is taken when it is alone."""
    wanted = f"linux/{architecture}"
    for manifest in manifests:
        if manifest.platform == wanted:
            return manifest
    if len(manifests) == 1 and manifests[0].platform is None:
        return manifests[0]
    offered = sorted({manifest.platform or "unnamed" for manifest in manifests})
    raise NoSuchImage(f"it has nothing for {wanted}; it has: {', '.join(offered) or 'nothing'}")


def parse_manifest(data: bytes, media_type: str) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    """The configuration and the layers that a manifest names."""
    document = parse_object(data, "the manifest")
    _refuse_keys(document, ("manifests", "fsLayers"), "the manifest")
    if document.get("schemaVersion") != 2:
        raise ImageFault(f"the manifest has schemaVersion {document.get('schemaVersion')!r} instead of 2")
    if document.get("mediaType", media_type) != media_type:
        raise ImageFault(f"the manifest says it is {document['mediaType']!r}, its descriptor {media_type!r}")
    config = _descriptor(document.get("config"), "the manifest's config")
    if config.media_type not in CONFIG_TYPES:
        raise ImageFault(f"this is no container image: its config is {config.media_type!r}")
    layers = tuple(
        _descriptor(entry, f"layer {number} of the manifest")
        for number, entry in enumerate(_items(document, "layers", "the manifest"))
    )
    for layer in layers:
        if layer.media_type not in LAYER_TYPES:
            raise UnsupportedError(f"a layer of type {layer.media_type!r}", "layers are tar, plain, gzip or zstd")
    return config, layers


def parse_config(data: bytes, architecture: str) -> tuple[ImageConfig, tuple[str, ...]]:
    """How programs run in the image, and the diff_ids of its layers, lowest first."""
    document = parse_object(data, "the configuration")
    platform = f"{_text(document, 'os', 'the configuration')}/{_text(document, 'architecture', 'the configuration')}"
    if platform != f"linux/{architecture}":
        raise NoSuchImage(f"it is for {platform}, and this machine needs linux/{architecture}")
    rootfs = _object(document.get("rootfs"), "rootfs of the configuration")
    diff_ids = tuple(_digest(value, "a diff_id") for value in _items(rootfs, "diff_ids", "rootfs of the configuration"))
    if not diff_ids:
        raise ImageFault("it has no layers, so no root file system")
    if len(diff_ids) > DEFAULT_LIMITS.layers:
        raise ImageFault(f"it has {len(diff_ids)} layers; {DEFAULT_LIMITS.layers} are allowed")
    options = _object(document.get("config") or {}, "config of the configuration")
    labels = _object(options.get("Labels") or {}, "Labels")
    return (
        ImageConfig(
            env=_texts(options, "Env"),
            entrypoint=_texts(options, "Entrypoint"),
            cmd=_texts(options, "Cmd"),
            working_dir=_text(options, "WorkingDir", "config", default=""),
            user=_text(options, "User", "config", default=""),
            labels={name: _text(labels, name, "Labels", default="") for name in labels},
            stop_signal=_text(options, "StopSignal", "config", default=""),
        ),
        diff_ids,
    )


def parse_json(data: bytes, what: str) -> Any:
    """The JSON value in `data`, of which `what` is the name in messages."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ImageFault(f"{what} is not JSON: {error}") from error


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in `data`."""
    return _object(parse_json(data, what), what)


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ImageFault(f"{what} is not a JSON object")
    return value


def _items(document: Mapping[str, Any], key: str, what: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise ImageFault(f"{key!r} of {what} is not a list")
    return value


def _text(document: Mapping[str, Any], key: str, what: str, default: str | None = None) -> str:
    value = document.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or "\0" in value:
        raise ImageFault(f"{key!r} of {what} is not a text")
    return value


def _texts(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = document.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
        raise ImageFault(f"{key!r} of config is not a list of texts")
    return tuple(value)


def _digest(value: object, what: str) -> str:
    if not is_digest(value):
        raise ImageFault(f"{what} is no sha256 digest: {str(value)[:100]!r}")
    return str(value)


def _descriptor(value: object, what: str) -> Descriptor:
    entry = _object(value, what)
    size = entry.get("size")
    if type(size) is not int or size < 0:
        raise ImageFault(f"{what} has no valid size")
    annotations = _object(entry.get("annotations") or {}, f"annotations of {what}")
    ref_name, image_name = annotations.get(REF_NAME), annotations.get(NAME_ANNOTATION)
    platform = None
    if entry.get("platform") is not None:
        fields = _object(entry["platform"], f"platform of {what}")
        platform = f"{_text(fields, 'os', what)}/{_text(fields, 'architecture', what)}"
    return Descriptor(
        media_type=_text(entry, "mediaType", what),
        digest=_digest(entry.get("digest"), f"the digest of {what}"),
        size=size,
        ref_name=ref_name if isinstance(ref_name, str) else None,
        platform=platform,
        image_name=image_name if isinstance(image_name, str) else None,
    )


def _refuse_keys(document: Mapping[str, Any], keys: Sequence[str], what: str) -> None:
    """A document that could be read as two kinds is refused: its digest would not say which image it is."""
    for key in keys:
        if key in document:
            raise ImageFault(f"{what} has a field {key!r}, which belongs to another kind of document")
