"""Read an image from an OCI archive (a tar of a layout) or a Docker archive (`docker save`), in place.

The members of the tar are found by walking its headers; blobs are then ranges of the file. A compressed archive has
no ranges, so it is unpacked once into a file without a name in the scratch folder, which is gone with the store.
Rules: names are normalised inside the archive; a link in it may only mean another member.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import attrs

from trio_sandbox.files import anonymous_file, storage_errors
from trio_sandbox.home import Home
from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.faults import ImageFault, NoSuchImage
from trio_sandbox.image.layers import compression_of, plain_chunks
from trio_sandbox.image.layout import INDEX_FILE, LAYOUT_FILE, check_layout_file, choose_image
from trio_sandbox.image.limits import DEFAULT_LIMITS, Limits
from trio_sandbox.image.oci import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Image,
    Layer,
    digest_of,
    host_architecture,
    parse_config,
    parse_json,
    resolve,
)
from trio_sandbox.image.progress import Meter
from trio_sandbox.image.tarformat import Kind, read_entries

DOCKER_MANIFEST = "manifest.json"
MAX_MEMBERS = 20_000
"""Members of an archive: blobs, folders and links of all its images."""

MAX_LINKS = 8
"""Links that are followed from one member to another."""


@attrs.define(eq=False)
class _FileSource:
    """A `tarformat.Source` over a range of a file: what is skipped is not read."""

    blob: Blob
    position: int = 0

    def read(self, amount: int) -> bytes:
        data = self.blob.read_at(self.position, amount) if self.position < self.blob.size else b""
        self.position += len(data)
        return data

    def skip(self, amount: int) -> None:
        self.position += amount


@attrs.define(eq=False)
class ArchiveStore:
    """An open archive. Owns its descriptor, and that of the unpacked copy."""

    tag: str | None
    _file: Blob
    _members: dict[str, Blob | str] = attrs.field(factory=dict)
    """By name: the bytes, or the name of the member that a link means."""

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], tag: str | None, home: Home, meter: Meter, limits: Limits = DEFAULT_LIMITS
    ) -> ArchiveStore:
        """Open an archive and find its members; the caller closes the store. Blocks; `meter` notices cancellation.

        Raises ImageFault for a damaged archive, OSError when the file cannot be opened, StorageError when a
        compressed one finds no room to be unpacked.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            blob = Blob("the archive", descriptor, 0, os.fstat(descriptor).st_size)
            if compression_of(blob) != "none":
                blob, packed = _unpack(blob, home, meter, limits), descriptor
                descriptor = blob.descriptor
                os.close(packed)
            store = cls(tag, blob)
            store._find_members()
        except BaseException:
            os.close(descriptor)
            raise
        return store

    def close(self) -> None:
        os.close(self._file.descriptor)

    def image(self) -> Image:
        index = self.index()
        if index is not None:
            return resolve(choose_image(index, self.tag), self.read)
        return self.docker_image(_choose_docker_image(self.docker_entries(), self.tag))[0]

    def index(self) -> bytes | None:
        """The top index of an OCI archive; None for a Docker archive."""
        if LAYOUT_FILE not in self._members or INDEX_FILE not in self._members:
            return None
        check_layout_file(self._document(LAYOUT_FILE))
        return self._document(INDEX_FILE)

    def docker_entries(self) -> list[dict[str, Any]]:
        """The images of a Docker archive, as its manifest describes them. Raises ImageFault when it is none."""
        if DOCKER_MANIFEST not in self._members:
            raise ImageFault(f"it is no image archive: it has neither {INDEX_FILE} nor {DOCKER_MANIFEST}")
        entries = parse_json(self._document(DOCKER_MANIFEST), DOCKER_MANIFEST)
        if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
            raise ImageFault(f"{DOCKER_MANIFEST} does not list an image")
        return entries

    def layer(self, layer: Layer) -> Blob:
        if layer.size is None:
            return self._member(layer.place)
        blob = self._member(_blob_name(layer.place))
        if blob.size != layer.size:
            raise ImageFault(f"blob {layer.place} has {blob.size} bytes instead of {layer.size}")
        return attrs.evolve(blob, name=layer.place)

    def _find_members(self) -> None:
        source = _FileSource(self._file)
        for number, entry in enumerate(read_entries(source, need_end=True)):
            if number >= MAX_MEMBERS:
                raise ImageFault(f"the archive has more than {MAX_MEMBERS} members")
            name = _normalised(entry.name)
            if entry.kind is Kind.FILE and entry.extents is None:
                if entry.offset + entry.stored > self._file.size:
                    raise ImageFault(f"the archive is cut off inside {name!a}")
                self._members[name] = Blob(f"member {name!a}", self._file.descriptor, entry.offset, entry.stored)
            elif entry.kind is Kind.SYMLINK:
                self._members[name] = _normalised(os.path.dirname(entry.name) + b"/" + entry.link)
            elif entry.kind is Kind.HARDLINK:
                self._members[name] = _normalised(entry.link)

    def _member(self, name: str) -> Blob:
        found: Blob | str | None = name
        for _ in range(MAX_LINKS):
            if not isinstance(found, str):
                break
            found = self._members.get(found)
        if not isinstance(found, Blob):
            raise ImageFault(f"{name!a} is missing from the archive")
        return found

    def _document(self, name: str) -> bytes:
        blob = self._member(name)
        if blob.size > MAX_DOCUMENT_BYTES:
            raise ImageFault(f"{name!a} has {blob.size} bytes; {MAX_DOCUMENT_BYTES} are allowed")
        return blob.read_at(0, blob.size)

    def read(self, descriptor: Descriptor) -> bytes:
        """The bytes of a document, for `oci.read_verified`, which checks them."""
        return self._member(_blob_name(descriptor.digest)).read_at(0, MAX_DOCUMENT_BYTES + 1)

    def docker_image(self, entry: dict[str, Any]) -> tuple[Image, bytes]:
        """One image of a Docker archive, and its configuration."""
        name = _member_name(entry.get("Config"))
        data = self._document(name)
        digest = digest_of(data)
        stated = os.path.basename(name).removesuffix(".json")
        if len(stated) == 64 and digest != f"sha256:{stated}":
            raise ImageFault(f"the configuration {name!a} is damaged: its bytes hash to {digest}")
        config, diff_ids = parse_config(data, host_architecture())
        layers = entry.get("Layers")
        if not isinstance(layers, list) or len(layers) != len(diff_ids):
            raise ImageFault(f"{DOCKER_MANIFEST} does not list the {len(diff_ids)} layers of the configuration")
        places = map(_member_name, layers)
        return Image(
            digest, config, tuple(Layer(diff_id, place, None) for diff_id, place in zip(diff_ids, places, strict=True))
        ), data


def _unpack(blob: Blob, home: Home, meter: Meter, limits: Limits) -> Blob:
    """The uncompressed bytes of an archive, in a new file without a name."""
    meter.begin("unpacking the archive", None)
    descriptor = anonymous_file(home.scratch)
    size = 0
    try:
        with closing(plain_chunks(blob)) as chunks, storage_errors(home.scratch):
            for chunk in chunks:
                size += len(chunk)
                if size > limits.total_bytes:
                    raise ImageFault(f"the archive unpacks to more than {limits.total_bytes} bytes")
                view = memoryview(chunk)
                while view:
                    view = view[os.write(descriptor, view) :]
                meter.add(len(chunk))
    except BaseException:
        os.close(descriptor)
        raise
    return Blob(blob.name, descriptor, 0, size)


def _choose_docker_image(entries: Sequence[dict[str, Any]], tag: str | None) -> dict[str, Any]:
    if tag is None and len(entries) == 1:
        return entries[0]
    names = []
    for entry in entries:
        for name in docker_tags(entry):
            names.append(name)
            if (tag or "latest") in (name, name.rpartition(":")[2]):
                return entry
    wanted = f"it has no tag {tag!r}" if tag else "it holds several images; add a tag as :TAG to the path"
    raise NoSuchImage(f"{wanted}; it has: {', '.join(names) or 'no tags'}")


def docker_tags(entry: dict[str, Any]) -> list[str]:
    """The whole names of an image of a Docker archive."""
    tags = entry.get("RepoTags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _member_name(value: object) -> str:
    if not isinstance(value, str):
        raise ImageFault(f"{DOCKER_MANIFEST} names no configuration or layer where it must")
    return _normalised(os.fsencode(value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")))


def _normalised(name: bytes) -> str:
    """A member's name without `.`, `..` and a leading slash."""
    parts: list[str] = []
    for part in name.decode("utf-8", "surrogateescape").split("/"):
        if part == "..":
            del parts[-1:]
        elif part and part != ".":
            parts.append(part)
    return "/".join(parts)


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")
