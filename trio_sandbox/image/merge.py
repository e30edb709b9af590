"""Merge the layers of an image into one tar stream, in one pass, with nothing on disk.

Layers are read from the top down, each once: it is unpacked, verified, and what the layers above do not hide is passed
on at once. Folders and hard links come at the end, when everything is known of them. The same layers make the same
bytes.

What an entry needs is known when it is read, but for two rare things: that its own layer replaces it later on, and that
it is hidden but has another name, a hard link, that is not. Then what was written is wrong; the merge ends with
`Contradicted`, which has the corrections, and with these it is done once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

import attrs

from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.layer_tree import Budget, LayerTree
from trio_sandbox.image.layers import ChunkSource, checked_layer
from trio_sandbox.image.limits import DEFAULT_LIMITS, Limits
from trio_sandbox.image.lower_links import LowerLinks
from trio_sandbox.image.oci import Layer
from trio_sandbox.image.progress import Meter
from trio_sandbox.image.sink import Sink, write_zeros
from trio_sandbox.image.tarformat import Entry, Kind, Xattrs, read_entries
from trio_sandbox.image.tarwriter import END_OF_ARCHIVE, padding, write_header
from trio_sandbox.image.tree import Folder, Inode, Place, lay_under, new_root, walk

XATTR_NAMESPACES = (b"user.", b"trusted.", b"security.")
"""Namespaces that squashfs can store. ACLs (`system.`) are lost."""

OVERLAY_XATTRS = b"trusted.overlay."
"""The guest's overlayfs would obey these; they are its own, not the image's."""

Corrections = Mapping[Place, bytes | None]
"""Under which name an entry must be written other than its own where that shows; None for not at all."""


class Contradicted(ImageFault):
    """What was written is wrong; a second merge with `corrections` is right, and cannot raise this unless the layers
    changed.
    """

    def __init__(self, corrections: Corrections) -> None:
        self.corrections = corrections
        super().__init__("its layers changed while they were read")


def merge_layers(
    layers: Sequence[Layer],
    open_blob: Callable[[Layer], Blob],
    sink: Sink,
    meter: Meter,
    limits: Limits = DEFAULT_LIMITS,
    corrections: Corrections | None = None,
) -> None:
    """Verify `layers` (lowest first) and write their union to `sink` as a tar archive.

    `open_blob` is called for each layer, the uppermost first, when it is needed, and may
    wait for the blob to arrive.

    Blocks: runs in a worker thread, in which `meter` notices cancellation. Raises ImageFault for what is wrong with
    the image, OSError from the sink, Contradicted when a second call with its corrections is needed. What was written
    before an error is of no use.
    """
    if len(layers) > limits.layers:
        raise ImageFault(f"it has {len(layers)} layers; {limits.layers} are allowed")
    merge = _Merge(sink, meter, Budget(limits), corrections)
    for number in reversed(range(len(layers))):
        label = f"layer {number + 1} of {len(layers)}"
        with _named(label):
            tree = merge.read(number, label, layers[number], open_blob(layers[number]))
        merge.add(tree)
    merge.finish()


@contextmanager
def _named(label: str) -> Iterator[None]:
    """Say of which layer a fault is."""
    try:
        yield
    except ImageFault as fault:
        raise ImageFault(f"{label}: {fault}") from fault


@attrs.define(eq=False)
class _Merge:
    """What is known after the layers that were read."""

    sink: Sink
    meter: Meter
    budget: Budget
    corrections: Corrections | None
    """None the first time."""
    root: Folder = attrs.field(factory=new_root)
    links: LowerLinks = attrs.field(factory=LowerLinks)
    replaced: list[Inode] = attrs.field(factory=list)
    plain_bytes: int = 0
    is_futile: bool = False
    """Whether corrections are needed: then no more is written, as the packer stops at a name that comes twice."""

    def read(self, number: int, label: str, layer: Layer, blob: Blob) -> LayerTree:
        """Read a layer to its end, and write of it what can be seen."""
        self.meter.begin(f"reading {label}", blob.size)
        version = blob.version()
        digest = layer.place if layer.size is not None and not blob.is_verified else None
        left = self.budget.limits.total_bytes - self.plain_bytes
        tree = LayerTree.under(self.root, number, label, self.budget)
        with closing(checked_layer(blob, digest, layer.diff_id, self.meter, left)) as chunks:
            source = ChunkSource(chunks)
            for entry in read_entries(source, need_end=False):
                self._take(tree, entry, source)
            source.drain()
        self.plain_bytes += source.position
        if blob.version() != version:
            raise ImageFault("its file was written to while it was read")
        return tree

    def _take(self, tree: LayerTree, entry: Entry, source: ChunkSource) -> None:
        added = tree.add(entry)
        if added is None:
            return
        inode, path = added
        if self.corrections:
            path = self.corrections.get(inode.place, path)
        if path is None:
            return
        inode.written = path
        self.is_futile |= tree.is_contradicted and self.corrections is None
        if not self.is_futile:
            self.sink.write(_header(entry, path))
            if entry.size:
                self._copy(entry, source)

    def _copy(self, entry: Entry, source: ChunkSource) -> None:
        """Write the content of a file, holes filled."""
        if entry.extents is None:
            source.copy(entry.size, self.sink)
        else:
            at = 0
            for start, length in entry.extents:
                write_zeros(start - at, self.sink, self.meter)
                source.copy(length, self.sink)
                at = start + length
            write_zeros(entry.size - at, self.sink, self.meter)
        self.sink.write(padding(entry.size))

    def add(self, tree: LayerTree) -> None:
        """Lay a layer that is complete under those before."""
        self.links.look_through(tree.root)
        lay_under(self.root, tree.root)
        self.links.add(tree.lower_links)
        self.replaced += tree.replaced

    def finish(self) -> None:
        """Write folders and hard links. Raises Contradicted when what came before is wrong."""
        self.meter.begin("writing folders and links", None)
        self.links.refuse()
        names = self._names_of_linked()
        found: dict[Place, bytes | None] = {
            inode.place: paths[0] for inode, paths in names.items() if inode.written not in paths
        }
        for inode in map(Inode.resolved, self.replaced):
            if inode.written is not None and inode not in names:
                found[inode.place] = None
        if found or self.is_futile:
            raise Contradicted(found)
        self._write_folders_and_links(names)
        self.sink.write(END_OF_ARCHIVE)

    def _names_of_linked(self) -> dict[Inode, list[bytes]]:
        """The names, sorted, under which each file that hard links were made to can be seen."""
        names: dict[Inode, list[bytes]] = {}
        for folder in walk(self.root):
            for name, node in folder.children.items():
                if isinstance(node, Inode) and node.is_linked:
                    names.setdefault(node.resolved(), []).append(folder.join(name))
        return {inode: sorted(paths) for inode, paths in names.items()}

    def _write_folders_and_links(self, names: Mapping[Inode, Sequence[bytes]]) -> None:
        for folder in walk(self.root):
            path = folder.path + b"/" if folder.path else b"."
            if folder.entry is None:
                self.sink.write(write_header(path, Kind.DIRECTORY, mode=0o755))
            else:
                self.sink.write(_header(folder.entry, path))
        for inode, paths in names.items():
            for path in paths:
                if path != inode.written:
                    self.sink.write(write_header(path, Kind.HARDLINK, link=inode.written or b""))


def _header(entry: Entry, path: bytes) -> bytes:
    return write_header(
        path,
        entry.kind,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime=min(max(entry.mtime, 0), 0xFFFFFFFF),
        size=entry.size if entry.kind is Kind.FILE else 0,
        link=entry.link if entry.kind is Kind.SYMLINK else b"",
        device=entry.device,
        xattrs=_kept_xattrs(entry) if entry.xattrs else (),
    )


def _kept_xattrs(entry: Entry) -> Xattrs:
    return tuple(
        (key, value)
        for key, value in sorted(entry.xattrs)
        if key.startswith(XATTR_NAMESPACES) and key not in XATTR_NAMESPACES and not key.startswith(OVERLAY_XATTRS)
    )
