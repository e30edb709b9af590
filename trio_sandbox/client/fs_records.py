"""The records of `list`, `pack` and `unpack` (docs/wire.md, *Files*). Sans-IO.

What the guest sends is hostile: names are checked here before anybody makes a path of them, and a wrong record is a
RemoteProtocolError and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from trio_sandbox.client.fs_types import FOLDER, MAX_PATH, REGULAR, SYMLINK, TYPE_BITS, FsEntry, FsMetadata, path_text
from trio_sandbox.convert import MapStream, pack_map
from trio_sandbox.errors import RemoteProtocolError
from trio_sandbox.relay.messages import (
    FileStatus,
)

MAX_NAME = 255
"""Bytes of one name in a folder."""

_INT64 = range(-(1 << 63), 1 << 63)


@attrs.frozen
class TreeRecord:
    """One file, folder or symbolic link of a tree that travels; `size` bytes follow a regular file's."""

    name: bytes
    """Relative to the root of the tree, which itself is b""."""
    mode: int
    mtime_ns: int
    size: int = 0
    target: bytes = b""

    @property
    def kind(self) -> int:
        """REGULAR, FOLDER or SYMLINK."""
        return self.mode & TYPE_BITS

    @property
    def components(self) -> list[bytes]:
        """The names on the way from the root; none for the root itself."""
        return self.name.split(b"/") if self.name else []

    def pack(self) -> bytes:
        """The record as it travels."""
        return pack_map(attrs.asdict(self))

    @classmethod
    def from_map_untrusted(cls, found: Mapping[str, object]) -> TreeRecord:
        """Raises RemoteProtocolError, and nothing else."""
        _check_keys(found, _TREE_KEYS, "a record")
        record = cls(**found)  # type: ignore[arg-type]  # checked above
        for name in record.components:
            _check_name(name)
        if len(record.name) > MAX_PATH:
            raise RemoteProtocolError(f"a record's name has {len(record.name)} bytes")
        if record.kind not in (REGULAR, FOLDER, SYMLINK) or record.mode >> 16:
            raise RemoteProtocolError(f"a record of mode {record.mode:#o}")
        if record.size not in _INT64 or record.size < 0 or record.mtime_ns not in _INT64:
            raise RemoteProtocolError("a record's size or time is out of range")
        if record.kind == SYMLINK and (not 0 < len(record.target) <= MAX_PATH or b"\0" in record.target):
            raise RemoteProtocolError("a symbolic link that points nowhere")
        return record


_TREE_KEYS: dict[str, type] = {"name": bytes, "mode": int, "mtime_ns": int, "size": int, "target": bytes}
_STATUS_KEYS: dict[str, type] = {field.name: int for field in attrs.fields(FileStatus)}
_ENTRY_KEYS: dict[str, type] = {"name": bytes, **_STATUS_KEYS}


def _check_keys(found: Mapping[str, object], keys: Mapping[str, type], what: str) -> None:
    if found.keys() != keys.keys():
        raise RemoteProtocolError(f"{what} with other keys than {', '.join(keys)}")
    for key, kind in keys.items():
        if type(found[key]) is not kind:
            raise RemoteProtocolError(f"{what} whose {key} is no {kind.__name__}")


def _check_name(name: bytes) -> None:
    """One name in a folder: nothing that leads elsewhere."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or len(name) > MAX_NAME:
        raise RemoteProtocolError(f"a wrong file name, {name[:64]!r}")


class RecordStream:
    """The records of one tree, and between them the bytes of its files, from chunks that are cut anywhere."""

    def __init__(self) -> None:
        self._maps = MapStream()
        self._left = 0

    def feed_untrusted(self, chunk: bytes) -> Iterator[TreeRecord | bytes]:
        """What `chunk` completes: records, and the bytes of the file whose record came last, never empty.

        To be exhausted before the next call. Raises RemoteProtocolError.
        """
        self._maps.feed(chunk)
        while True:
            if self._left:
                piece = self._maps.take(self._left)
                if not piece:
                    return
                self._left -= len(piece)
                yield piece
                continue
            found = self._next()
            if found is None:
                return
            record = TreeRecord.from_map_untrusted(found)
            self._left = record.size if record.kind == REGULAR else 0
            yield record

    def _next(self) -> dict[str, object] | None:
        try:
            return self._maps.next_untrusted()
        except ValueError as error:
            raise RemoteProtocolError(f"records: {error}") from error

    def finish_untrusted(self) -> None:
        """Nothing follows. Raises RemoteProtocolError when something should."""
        if self._left or self._maps.waiting:
            raise RemoteProtocolError("the records end in the middle")


class EntryStream:
    """The entries of one folder from chunks that are cut anywhere."""

    def __init__(self, folder: bytes) -> None:
        self._prefix = folder.rstrip(b"/") + b"/"
        self._maps = MapStream()

    def feed_untrusted(self, chunk: bytes) -> list[FsEntry]:
        """The entries that `chunk` completes. Raises RemoteProtocolError."""
        entries = []
        try:
            self._maps.feed(chunk)
            while (found := self._maps.next_untrusted()) is not None:
                entries.append(self._entry_untrusted(found))
        except ValueError as error:
            raise RemoteProtocolError(f"list: {error}") from error
        return entries

    def _entry_untrusted(self, found: dict[str, object]) -> FsEntry:
        target = found.pop("target", None)
        _check_keys(found, _ENTRY_KEYS, "an entry")
        name = found.pop("name")
        assert isinstance(name, bytes)
        _check_name(name)
        if target is not None and type(target) is not bytes:
            raise RemoteProtocolError(f"an entry whose target is {type(target).__name__}")
        metadata = FsMetadata.of(FileStatus(**found))  # type: ignore[arg-type]  # checked above
        return FsEntry(path_text(self._prefix + name), metadata, None if target is None else path_text(target))

    def finish_untrusted(self) -> None:
        """Nothing follows. Raises RemoteProtocolError when something should."""
        if self._maps.waiting:
            raise RemoteProtocolError("the entries end in the middle")
