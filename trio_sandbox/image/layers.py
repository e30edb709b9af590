"""A layer as a stream of tar bytes: decompressed, hashed, bounded.

The compression is told from the first bytes, not from the media type: builders disagree about the latter.
zstd is read by Python's own module where there is one (3.14), else by the `zstd` program through a pipe.
Runs in a worker thread; every chunk is a cancellation point.
"""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import threading
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from typing import Any, Protocol

import attrs

from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.progress import Meter

READ_BYTES = 256 << 10
"""Stored bytes read at once."""

CHUNK_BYTES = 1 << 20
"""Most uncompressed bytes made at once."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

Chunks = Generator[bytes, None, None]


class Hasher(Protocol):
    """What `plain_chunks` needs of a hashlib object."""

    def update(self, data: bytes, /) -> None: ...


def compression_of(blob: Blob) -> str:
    """How a blob is compressed, by its first bytes: "gzip", "zstd" or "none"."""
    head = blob.read_at(0, 4)
    return "gzip" if head[:2] == _GZIP else "zstd" if head == _ZSTD else "none"


def plain_chunks(blob: Blob, hasher: Hasher | None = None) -> Chunks:
    """The uncompressed bytes of a blob. `hasher.update` sees the stored bytes as they are read.

    Raises ImageFault for damaged compression, HostNotReadyError when zstd is needed and missing. Close it when it is
    left early.
    """
    stored = _stored_chunks(blob, hasher)
    match compression_of(blob):
        case "gzip":
            return _gunzip(stored, blob.name)
        case "zstd":
            return _unzstd(stored, blob.name)
        case _:
            return stored


def _stored_chunks(blob: Blob, hasher: Hasher | None) -> Chunks:
    for offset in range(0, blob.size, READ_BYTES):
        data = blob.read_at(offset, READ_BYTES)
        if hasher is not None:
            hasher.update(data)
        yield data


def _gunzip(stored: Chunks, name: str) -> Chunks:
    inflater: Any = zlib.decompressobj(31)
    padding = False
    for data in stored:
        while data:
            if padding:  # between members, or after the last one, there may be zero bytes
                data = data.lstrip(b"\0")
                if not data:
                    break
                inflater, padding = zlib.decompressobj(31), False
            try:
                plain = inflater.decompress(data, CHUNK_BYTES)
            except zlib.error as error:
                raise ImageFault(f"{name} is damaged: {error}") from error
            if plain:
                yield plain
            padding = inflater.eof
            data = inflater.unused_data if padding else inflater.unconsumed_tail
    if not padding:
        raise ImageFault(f"{name} is cut off in the middle of its gzip data")


def _unzstd(stored: Chunks, name: str) -> Chunks:
    try:
        module = importlib.import_module("compression.zstd")
    except ImportError:
        return _unzstd_by_program(stored, name)
    return _unzstd_by_module(module, stored, name)


def _unzstd_by_module(module: Any, stored: Chunks, name: str) -> Chunks:
    decompressor = module.ZstdDecompressor()
    for data in stored:
        while data or not decompressor.needs_input:
            if decompressor.eof:
                data = decompressor.unused_data + data
                if not data:
                    break
                decompressor = module.ZstdDecompressor()
            try:
                plain = decompressor.decompress(data, CHUNK_BYTES)
            except module.ZstdError as error:
                raise ImageFault(f"{name} is damaged: {error}") from error
            data = b""
            if plain:
                yield plain
    if not decompressor.eof:
        raise ImageFault(f"{name} is cut off in the middle of its zstd data")


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
    """A `tarformat.Source` over chunks, for one pass from the start to the end."""

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
        parts = []
        while amount and self._fill():
            part = self._chunk[self._at : self._at + amount]
            self._at += len(part)
            amount -= len(part)
            self.position += len(part)
            parts.append(part)
        return b"".join(parts)

    def skip(self, amount: int) -> None:
        for _ in self.pieces(amount):
            pass

    def pieces(self, amount: int) -> Iterator[memoryview]:
        """The next `amount` bytes, uncopied and in pieces; fewer at the end of the stream."""
        while amount and self._fill():
            piece = memoryview(self._chunk)[self._at : self._at + amount]
            self._at += len(piece)
            amount -= len(piece)
            self.position += len(piece)
            yield piece

    def drain(self) -> None:
        """Read to the end of the stream."""
        while self._fill():
            self.skip(len(self._chunk) - self._at)

    def _fill(self) -> bool:
        while self._at == len(self._chunk):
            chunk = next(self.chunks, None)
            if chunk is None:
                return False
            self._chunk, self._at = chunk, 0
        return True


def checked_layer(blob: Blob, digest: str | None, diff_id: str, meter: Meter, limit: int) -> Chunks:
    """The uncompressed bytes of a layer, verified when the last has been taken.

    digest: of the stored bytes, None where nobody stated one. limit: bytes that may come out.
    Raises ImageFault when a digest disagrees or the limit is reached.
    """
    # Plain tar is stored as it unpacks: one hash serves both digests.
    stored_hash = None if digest is None or (digest == diff_id and compression_of(blob) == "none") else hashlib.sha256()
    plain_hash = hashlib.sha256()
    total = 0
    with closing(plain_chunks(blob, stored_hash)) as chunks:
        for chunk in chunks:
            total += len(chunk)
            if total > limit:
                raise ImageFault(f"{blob.name} unpacks to more than the {limit} bytes that the limit leaves")
            plain_hash.update(chunk)
            meter.add(len(chunk))
            yield chunk
    if stored_hash is not None and f"sha256:{stored_hash.hexdigest()}" != digest:
        raise ImageFault(f"blob {blob.name} is damaged: its bytes hash to sha256:{stored_hash.hexdigest()}")
    if f"sha256:{plain_hash.hexdigest()}" != diff_id:
        raise ImageFault(f"{blob.name} unpacks to sha256:{plain_hash.hexdigest()} instead of its diff_id {diff_id}")
