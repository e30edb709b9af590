"""Merge the layers of an image into one tar stream, in two passes, with nothing on disk.

The first pass reads every layer once, verifies it and keeps only names and metadata: it yields the tree. The second
pass reads again what of each layer is still in the tree and copies it out. Order of the output: folders, then
everything without content, then files in the order in which their layers store them, then hard links. The same layers
make the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Protocol

import attrs

from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.layers import (
    CHUNK_BYTES,
    READ_BYTES,
    Chunks,
    ChunkSource,
    checked_layer,
    compression_of,
    plain_chunks,
)
from trio_sandbox.image.limits import DEFAULT_LIMITS, Limits
from trio_sandbox.image.oci import Layer
from trio_sandbox.image.progress import Meter
from trio_sandbox.image.tarformat import END_OF_ARCHIVE, Kind, padding, read_entries, write_header
from trio_sandbox.image.tree import Node, Tree

ZEROS = bytes(1 << 20)
"""Holes of sparse files are written from here; the packer finds them again."""


KEPT_BYTES = 256 << 20
"""Most memory that unpacked layers may take between the two passes."""


def write_all(descriptor: int, view: memoryview) -> None:
    """Write all of `view` to a blocking descriptor."""
    while view:
        view = view[os.write(descriptor, view) :]


class Sink(Protocol):
    """Where the merged stream goes."""

    def write(self, data: bytes | memoryview, /) -> None: ...


@attrs.define(eq=False)
class PipeSink:
    """A sink that writes to a blocking descriptor in large pieces. Flush it at the end."""

    descriptor: int
    _buffer: bytearray = attrs.field(factory=bytearray)

    def write(self, data: bytes | memoryview) -> None:
        if len(data) >= READ_BYTES:
            self.flush()
            write_all(self.descriptor, memoryview(data))
            return
        self._buffer += data
        if len(self._buffer) >= READ_BYTES:
            self.flush()

    def flush(self) -> None:
        buffer, self._buffer = self._buffer, bytearray()
        write_all(self.descriptor, memoryview(buffer))


def merge_layers(
    layers: Sequence[tuple[Layer, Blob]], sink: Sink, meter: Meter, limits: Limits = DEFAULT_LIMITS
) -> None:
    """Verify `layers` (lowest first) and write their union to `sink` as a tar archive.

    Blocks: runs in a worker thread, in which `meter` notices cancellation. Raises ImageFault for what is wrong with
    the image, OSError from the sink. What was written before an error is of no use.
    """
    if len(layers) > limits.layers:
        raise ImageFault(f"it has {len(layers)} layers; {limits.layers} are allowed")
    versions = [blob.version() for _, blob in layers]
    meter.begin("reading layers", None)
    with ExitStack() as stack:
        kept = _Kept(os.memfd_create("layers", os.MFD_CLOEXEC))
        stack.callback(os.close, kept.memory)
        tree = read_tree(layers, meter, limits, kept)
        write_tree(tree, [kept.blobs.get(number, blob) for number, (_, blob) in enumerate(layers)], sink, meter)
    if versions != [blob.version() for _, blob in layers]:
        raise ImageFault("its files were written to while they were read")


@attrs.define(eq=False)
class _Kept:
    """Small compressed layers, unpacked in memory between the passes: unpacking is most of the work of both.

    They lie one after the other in `memory`, a file that only exists in memory and belongs to the caller.
    """

    memory: int
    size: int = 0
    blobs: dict[int, Blob] = attrs.field(factory=dict)

    def keeping(self, chunks: Chunks, number: int, blob: Blob) -> Chunks:
        """Pass the chunks of layer `number` on, and keep them if they all fit."""
        if compression_of(blob) == "none":
            yield from chunks
            return
        start = end = os.lseek(self.memory, self.size, os.SEEK_SET)
        for chunk in chunks:
            end += len(chunk)
            if end <= KEPT_BYTES:
                write_all(self.memory, memoryview(chunk))
            else:
                os.ftruncate(self.memory, start)
            yield chunk
        if end <= KEPT_BYTES:
            self.size = end
            self.blobs[number] = Blob(blob.name, self.memory, start, end - start)


def read_tree(
    layers: Sequence[tuple[Layer, Blob]], meter: Meter, limits: Limits = DEFAULT_LIMITS, kept: _Kept | None = None
) -> Tree:
    """The first pass: verify every layer, and lay one over the other."""
    tree = Tree(limits)
    left = limits.total_bytes
    for number, (layer, blob) in enumerate(layers):
        digest = layer.place if layer.size is not None else None
        with closing(checked_layer(blob, digest, layer.diff_id, meter, left)) as chunks:
            source = ChunkSource(kept.keeping(chunks, number, blob) if kept is not None else chunks)
            tree.add_layer(number, read_entries(source, need_end=False))
            source.drain()
        left -= source.position
    return tree


def write_tree(tree: Tree, blobs: Sequence[Blob], sink: Sink, meter: Meter) -> None:
    """The second pass: write the tree as a tar archive, its contents taken from `blobs`."""
    files: list[list[Node]] = [[] for _ in blobs]
    hard_links: list[tuple[Node, bytes, Node]] = []
    others: list[Node] = []
    for parent, name, node in _walk(tree.root):
        if node.children is not None:
            node.parent, node.name = parent, name
            sink.write(_header(node))
        elif node.parent is not None:
            hard_links.append((parent, name, node))
        else:
            node.parent, node.name = parent, name
            (files[node.layer] if node.kind is Kind.FILE else others).append(node)
    for node in others:
        sink.write(_header(node))
    meter.begin("building the root file system", sum(node.size for nodes in files for node in nodes))
    for blob, nodes in zip(blobs, files, strict=True):
        nodes.sort(key=lambda node: node.offset)
        _copy_files(blob, nodes, sink, meter)
    for parent, name, node in hard_links:
        sink.write(write_header(_join(_path_of(parent), name), Kind.HARDLINK, link=_path_of(node)))
    sink.write(END_OF_ARCHIVE)


def _walk(root: Node) -> Iterator[tuple[Node, bytes, Node]]:
    """Every node with its folder and name, folders before what is in them, sorted. The root is its own parent."""
    yield root, b"", root
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        for name, node in sorted((folder.children or {}).items()):
            yield folder, name, node
            if node.children:
                waiting.append(node)


def _header(node: Node) -> bytes:
    path = _path_of(node)
    return write_header(
        path + b"/" if node.kind is Kind.DIRECTORY else path,
        node.kind,
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        mtime=node.mtime,
        size=node.size,
        link=node.link,
        device=node.device,
        xattrs=node.xattrs,
    )


def _path_of(node: Node) -> bytes:
    """The name under which `node` is written; b"." for the root."""
    parts: list[bytes] = []
    while node.parent is not None and node.parent is not node:
        parts.append(node.name)
        node = node.parent
    return b"/".join(reversed(parts)) or b"."


def _join(folder: bytes, name: bytes) -> bytes:
    return name if folder == b"." else folder + b"/" + name


def _copy_files(blob: Blob, nodes: Sequence[Node], sink: Sink, meter: Meter) -> None:
    """Write the files of one layer, in the order of their offsets."""
    if not nodes:
        return
    with closing(_open_ranges(blob)) as reader:
        for node in nodes:
            sink.write(_header(node))
            _copy_content(node, reader, sink, meter)
            sink.write(padding(node.size))


def _copy_content(node: Node, reader: RangeReader, sink: Sink, meter: Meter) -> None:
    at = 0
    offset = node.offset
    for start, length in node.extents if node.extents is not None else ((0, node.size),):
        _write_zeros(start - at, sink, meter)
        for piece in reader.pieces(offset, length):
            sink.write(piece)
            meter.add(len(piece))
        offset += length
        at = start + length
    _write_zeros(node.size - at, sink, meter)


def _write_zeros(amount: int, sink: Sink, meter: Meter) -> None:
    while amount > 0:
        step = min(amount, len(ZEROS))
        sink.write(ZEROS if step == len(ZEROS) else memoryview(ZEROS)[:step])
        meter.add(step)
        amount -= step


class RangeReader(Protocol):
    """Reads ranges of an uncompressed layer; offsets only grow."""

    def pieces(self, offset: int, amount: int, /) -> Iterator[memoryview]: ...

    def close(self) -> None: ...


def _open_ranges(blob: Blob) -> RangeReader:
    if compression_of(blob) == "none":
        return _PlainRanges(blob)
    chunks = plain_chunks(blob)
    return _UnpackedRanges(blob, ChunkSource(chunks), chunks)


@attrs.define(eq=False)
class _PlainRanges:
    """Of a layer that is stored as plain tar: what is not wanted is not read."""

    blob: Blob
    _window: bytes = b""
    _start: int = 0

    def pieces(self, offset: int, amount: int) -> Iterator[memoryview]:
        while amount:
            at = offset - self._start
            if not 0 <= at < len(self._window) or at + min(amount, READ_BYTES) > len(self._window):
                self._start, at = offset, 0
                self._window = self.blob.read_at(offset, max(READ_BYTES, min(amount, CHUNK_BYTES)))
            piece = memoryview(self._window)[at : at + amount]
            if not piece:
                raise ImageFault(f"{self.blob.name} was cut while it was read")
            yield piece
            offset += len(piece)
            amount -= len(piece)

    def close(self) -> None:
        self._window = b""


@attrs.define(eq=False)
class _UnpackedRanges:
    """Of a compressed layer: runs through the decompression once."""

    blob: Blob
    source: ChunkSource
    chunks: Chunks

    def pieces(self, offset: int, amount: int) -> Iterator[memoryview]:
        self.source.skip(offset - self.source.position)
        end = offset + amount
        yield from self.source.pieces(amount)
        if self.source.position != end:
            raise ImageFault(f"{self.blob.name} was cut while it was read")

    def close(self) -> None:
        self.chunks.close()
