"""A layer as a stream of tar bytes: decompressed, hashed, bounded.

The compression is told from the first bytes, not from the media type: builders disagree about the latter.
zstd is read by Python's own module where there is one (3.14), else by the `zstd` program through a pipe.
Runs in a worker thread; every chunk is a cancellation point.
"""

from __future__ import annotations

import importlib
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from typing import Any, Protocol, cast

import attrs
from isal import igzip_lib

from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.hash_thread import Sha256
from trio_sandbox.image.progress import Meter
from trio_sandbox.image.sink import Sink

READ_BYTES = 256 << 10
"""Stored bytes read at once."""

CHUNK_BYTES = 1 << 20
"""Most uncompressed bytes made at once."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

Chunks = Generator[bytes, None, None]


def compression_of(blob: Blob) -> str:
    """How a blob is compressed, by its first bytes: "gzip", "zstd" or "none"."""
    head = blob.read_at(0, 4)
    return "gzip" if head[:2] == _GZIP else "zstd" if head == _ZSTD else "none"


def plain_chunks(blob: Blob, see: Callable[[bytes], None] = lambda data: None) -> Chunks:
    """The uncompressed bytes of a blob. `see` sees the stored bytes as they are read.

    Raises ImageFault for damaged compression, HostNotReadyError when zstd is needed and missing. Close it when it is
    left early.
    """
    stored = _stored_chunks(blob, see)
    match compression_of(blob):
        case "gzip":
            return _gunzip(stored, blob.name)
        case "zstd":
            return _unzstd(stored, blob.name)
        case _:
            return stored


def _stored_chunks(blob: Blob, see: Callable[[bytes], None]) -> Chunks:
    for offset in range(0, blob.size, READ_BYTES):
        data = blob.read_at(offset, READ_BYTES)
        see(data)
        yield data


class _Decompressor(Protocol):
    """Of one gzip member or one zstd frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _gunzip(stored: Chunks, name: str) -> Chunks:
    def member() -> _Decompressor:
        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)

    return _unpack(stored, member, cast(type[Exception], igzip_lib.IsalError), name)


def _unzstd(stored: Chunks, name: str) -> Chunks:
    try:
        module = importlib.import_module("compression.zstd")
    except ImportError:
        return _unzstd_by_program(stored, name)
    return _unpack(stored, module.ZstdDecompressor, module.ZstdError, name)


def _unpack(stored: Chunks, start: Callable[[], _Decompressor], damage: type[Exception], name: str) -> Chunks:
    """One part after the other, each with a decompressor of its own, and zero bytes between them or at the end."""
    decompressor: _Decompressor | None = None
    for data in stored:
        while data or decompressor is not None:
            if decompressor is None:
                data = data.lstrip(b"\0")
                if not data:
                    break
                decompressor = start()
            try:
                plain = decompressor.decompress(data, CHUNK_BYTES)
            except damage as error:
                raise ImageFault(f"{name} is damaged: {error}") from error
            data = b""
            if plain:
                yield plain
            if decompressor.eof:
                data, decompressor = decompressor.unused_data, None
            elif decompressor.needs_input:
                break
    if decompressor is not None:
        raise ImageFault(f"{name} is cut off in the middle of its compressed data")


def _unzstd_by_program(stored: Chunks, name: str) -> Chunks:
    try:
        process = subprocess.Popen(
            ["zstd", "-dcq"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise HostNotReadyError("zstd", "this image is compressed with it", "install the zstd package") from error
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    failures: list[Exception] = []

    def feed(pipe: Any) -> None:
        try:
            with pipe, suppress(BrokenPipeError):
                for data in stored:
                    pipe.write(data)
        except Exception as error:  # raised again in the thread that reads
            failures.append(error)

    feeder = threading.Thread(target=feed, args=[process.stdin], name="zstd-feeder", daemon=True)
    feeder.start()
    try:
        while plain := process.stdout.read(CHUNK_BYTES):
            yield plain
        feeder.join()
        if failures:
            raise failures[0]
        said = process.stderr.read(400).decode(errors="replace").strip()
        if process.wait():
            raise ImageFault(f"{name} is damaged: {said}")
    finally:
        process.kill()
        feeder.join()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@attrs.define(eq=False)
class ChunkSource:
    """A `tarfields.Source` over chunks, for one pass from the start to the end."""

    chunks: Iterator[bytes]
    position: int = 0
    _chunk: bytes = b""
    _at: int = 0

    def read(self, amount: int) -> bytes:
        end = self._at + amount
        if end <= len(self._chunk):
            data = self._chunk[self._at : end]
            self._at = end
            self.position += amount
            return data
        return b"".join(self._pieces(amount))

    def skip(self, amount: int) -> None:
        end = self._at + amount
        if end <= len(self._chunk):
            self._at = end
            self.position += amount
            return
        for _ in self._pieces(amount):
            pass

    def copy(self, amount: int, sink: Sink) -> None:
        """Write the next `amount` bytes to `sink`. Raises ImageFault when there are not so many."""
        for piece in self._pieces(amount):
            sink.write(piece)
            amount -= len(piece)
        if amount:
            raise ImageFault(f"the tar archive is cut off at byte {self.position}")

    def drain(self) -> None:
        """Read to the end of the stream."""
        while self._fill():
            self.skip(len(self._chunk) - self._at)

    def _pieces(self, amount: int) -> Iterator[memoryview]:
        """The next `amount` bytes, uncopied and in pieces; fewer at the end of the stream."""
        while amount and self._fill():
            piece = memoryview(self._chunk)[self._at : self._at + amount]
            self._at += len(piece)
            amount -= len(piece)
            self.position += len(piece)
            yield piece

    def _fill(self) -> bool:
        while self._at == len(self._chunk):
            chunk = next(self.chunks, None)
            if chunk is None:
                return False
            self._chunk, self._at = chunk, 0
        return True


def checked_layer(blob: Blob, digest: str | None, diff_id: str, meter: Meter, limit: int) -> Chunks:
    """The uncompressed bytes of a layer, verified when the last has been taken. The meter tells how far the blob is
    read.

    digest: of the stored bytes, None where nobody stated one. limit: bytes that may come out.
    Raises ImageFault when a digest disagrees or the limit is reached.
    """
    total = stored = 0
    # Plain tar is stored as it unpacks: one hash serves both digests.
    is_plain = digest == diff_id and compression_of(blob) == "none"
    with Sha256() as stored_hash, Sha256() as plain_hash:

        def see(data: bytes) -> None:
            nonlocal stored
            stored += len(data)
            if digest is not None and not is_plain:
                stored_hash.update(data)

        with closing(plain_chunks(blob, see)) as chunks:
            for chunk in chunks:
                total += len(chunk)
                if total > limit:
                    raise ImageFault(f"it unpacks to more than the {limit} bytes that the limit leaves")
                plain_hash.update(chunk)
                meter.add(len(chunk), stored)
                yield chunk
        if digest is not None and not is_plain and stored_hash.digest() != digest:
            raise ImageFault(f"blob {blob.name} is damaged: its bytes hash to {stored_hash.digest()}")
        if plain_hash.digest() != diff_id:
            raise ImageFault(f"{blob.name} unpacks to {plain_hash.digest()} instead of its diff_id {diff_id}")
