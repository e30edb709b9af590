"""From a reference to an image for this machine, with all its documents, checked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import attrs

from trio_sandbox.errors import UnsupportedError
from trio_sandbox.image import oci
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.oci import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Image,
    digest_of,
    parse_manifest,
    parse_object,
    read_verified,
)
from trio_sandbox.image.registry.access import RegistryAccess
from trio_sandbox.image.registry.failures import blame_registry
from trio_sandbox.image.registry.reference import RegistryReference
from trio_sandbox.image.registry.retry import Patience, patiently

if TYPE_CHECKING:
    from trio_sandbox.image.registry.client import RegistryClient

ACCEPT = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"
DIGEST_HEADER = "Docker-Content-Digest"


@attrs.frozen
class ResolvedImage:
    """What a reference means now."""

    image: Image
    documents: Mapping[str, bytes] = attrs.field(repr=False)
    """By digest: the index, if there is one, the manifest, and the configuration."""
    manifest: Descriptor
    layers: tuple[Descriptor, ...]
    """As the manifest names them, lowest first."""


class _Wanted(Exception):
    """A document has to be fetched before the image is known."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        super().__init__(descriptor.digest)


async def resolve_image(reference: RegistryReference, access: RegistryAccess) -> ResolvedImage:
    """Ask for the image, its mirrors first.

    Every document is bounded in size, and checked against the digest that named it. Raises ImagePullError,
    ImageNotFoundError, InvalidImageError, UnsupportedError. Cancellation leaves nothing.
    """
    with blame_registry(str(reference), reference.registry):
        return await access.ask(reference, lambda client: _resolve(client, reference))


async def _resolve(client: RegistryClient, reference: RegistryReference) -> ResolvedImage:
    retries = client.endpoint.settings.retries
    root, data = await patiently(partial(_root, client, reference), Patience(retries))
    named, documents = {root.digest: root}, {root.digest: data}

    def read(descriptor: Descriptor) -> bytes:
        named[descriptor.digest] = descriptor
        if descriptor.digest not in documents:
            raise _Wanted(descriptor)
        return documents[descriptor.digest]

    while True:
        try:
            image = oci.resolve(root, read)
            break
        except _Wanted as wanted:
            descriptor = wanted.descriptor
        documents[descriptor.digest] = await patiently(partial(_document, client, descriptor), Patience(retries))
    manifest = named[image.manifest_digest]
    _, layers = parse_manifest(documents[manifest.digest], manifest.media_type)
    return ResolvedImage(image, documents, manifest, layers)


def _root(client: RegistryClient, reference: RegistryReference) -> tuple[Descriptor, bytes]:
    """The document that a reference names by itself. Blocking."""
    url = client.url("manifests", reference.version)
    data, response = client.document(url, {"Accept": ACCEPT}, MAX_DOCUMENT_BYTES)
    digest = digest_of(data)
    if reference.digest is not None and digest != reference.digest:
        raise ImageFault(f"asked for {reference.digest}, it sent bytes that hash to {digest}")
    told = response.headers.get(DIGEST_HEADER, "").strip()
    if told.startswith("sha256:") and told != digest:
        raise ImageFault(f"it calls its manifest {told}, but the bytes hash to {digest}")
    return Descriptor(_media_type(response.headers.get("Content-Type", ""), data), digest, len(data)), data


def _document(client: RegistryClient, descriptor: Descriptor) -> bytes:
    """A document that another names. Blocking."""
    kind = "manifests" if descriptor.media_type in (*INDEX_TYPES, *MANIFEST_TYPES) else "blobs"

    def read(wanted: Descriptor) -> bytes:
        return client.document(client.url(kind, wanted.digest), {"Accept": wanted.media_type}, wanted.size)[0]

    return read_verified(descriptor, read)


def _media_type(header: str, data: bytes) -> str:
    """What kind of document a registry sent. Some say nothing of use in the header, and then the document decides."""
    told = header.partition(";")[0].strip().lower()
    if told.startswith(SCHEMA_1):
        raise UnsupportedError("an image by Docker's first schema", "push it anew with a present-day tool")
    if told in (*INDEX_TYPES, *MANIFEST_TYPES):
        return told
    document = parse_object(data, "the manifest")
    inside = document.get("mediaType")
    if isinstance(inside, str):
        return inside
    if document.get("schemaVersion") == 1:
        raise UnsupportedError("an image by Docker's first schema", "push it anew with a present-day tool")
    return INDEX_TYPES[0] if "manifests" in document else MANIFEST_TYPES[0]
