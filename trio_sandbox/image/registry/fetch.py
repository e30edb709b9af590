"""One blob into a file, going on where an earlier try stopped."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from trio_sandbox.files import storage_errors
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.oci import Descriptor
from trio_sandbox.image.registry.access import RegistryAccess
from trio_sandbox.image.registry.calls import current_call, interruptible
from trio_sandbox.image.registry.failures import RegistryFailure, Transient, blame_registry
from trio_sandbox.image.registry.reference import RegistryReference
from trio_sandbox.image.registry.retry import Patience, patiently

if TYPE_CHECKING:
    import requests

    from trio_sandbox.image.registry.client import RegistryClient

READ_BYTES = 1 << 20
REPORT_SECONDS = 0.05
"""Least time between two reports of one blob."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)

OnBytes = Callable[[int], None]


async def fetch_blob(
    reference: RegistryReference, descriptor: Descriptor, part: Path, access: RegistryAccess, on_bytes: OnBytes
) -> None:
    """Bring a blob of the image into the file `part`, and return when it is whole and hashes to its digest.

    What `part` holds already is kept and gone on from. on_bytes: called in the Trio thread as the file grows, with the
    bytes by which it did; with fewer than none when what it held was of no use. Only one call at a time may write to
    `part`. Raises ImagePullError, ImageNotFoundError, InvalidImageError, StorageError. Cancellation, and every error
    but InvalidImageError, leave in `part` what came, to go on from.
    """
    with blame_registry(str(reference), reference.registry), storage_errors(part.parent):
        descriptor_of_file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            blob = _Part(descriptor_of_file, descriptor, on_bytes)
            await interruptible(blob.take_up)
            if not blob.is_whole():
                await access.ask(reference, lambda client: _fetch(client, blob))
        finally:
            os.close(descriptor_of_file)


async def _fetch(client: RegistryClient, blob: _Part) -> None:
    patience = Patience(client.endpoint.settings.retries)
    await patiently(lambda: _download(client, blob, patience), patience)


def _download(client: RegistryClient, blob: _Part, patience: Patience) -> None:
    """What is missing, as far as it comes. Blocking. Raises RegistryFailure, ImageFault, OSError, Interrupted."""
    wanted, start = blob.descriptor, blob.size
    headers = {"Range": f"bytes={start}-"} if start else {}
    failure = None
    try:
        response = client.do_request(client.url("blobs", wanted.digest), headers=headers)
    except RegistryFailure as error:
        if not start or error.status != 416:
            raise
        failure = error
    if failure is not None:
        blob.drop()
        raise Transient("it cannot go on in the middle of this blob", status=416)
    with closing(response):
        _check_answer(response, blob)
        try:
            for chunk in client.chunks(response):
                blob.add(chunk)
        finally:
            patience.advance(max(0, blob.size - start))
            blob.report()
    if blob.size < wanted.size:
        raise Transient(f"a blob broke off after {blob.size} of {wanted.size} bytes")
    blob.verify(response.headers.get("Content-Encoding", ""))


def _check_answer(response: requests.Response, blob: _Part) -> None:
    """Make sure that the body goes on where the file ends, or empty the file."""
    wanted = blob.descriptor
    if response.status_code == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if not blob.size or match is None or int(match[1]) != blob.size:
            blob.drop()
            raise Transient("it sent another part of a blob than was asked for", status=206)
        if match[3] not in ("*", str(wanted.size)):
            raise ImageFault(f"blob {wanted.digest} has {match[3]} bytes there instead of {wanted.size}")
        return
    blob.drop()
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != wanted.size:
        raise ImageFault(f"blob {wanted.digest} has {length} bytes there instead of {wanted.size}")


@attrs.define(eq=False)
class _Part:
    """A file that a blob grows in. Its methods are for the thread of the call, and only for one at a time."""

    _file: int
    descriptor: Descriptor
    _on_bytes: OnBytes
    size: int = 0
    _hash: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _unreported: int = 0
    _last_report: float = 0.0

    def is_whole(self) -> bool:
        """Whether nothing is missing, and nothing wrong."""
        return self.size == self.descriptor.size and self._digest() == self.descriptor.digest

    def take_up(self) -> None:
        """Read what the file holds. It is dropped when it can be no beginning of the blob."""
        call = current_call()
        while data := os.pread(self._file, READ_BYTES, self.size):
            call.check()
            self._hash.update(data)
            self.size += len(data)
            if self.size > self.descriptor.size:
                break
        if self.size > self.descriptor.size or (self.size == self.descriptor.size and not self.is_whole()):
            self.drop()

    def drop(self) -> None:
        """Begin anew."""
        os.ftruncate(self._file, 0)
        self._unreported -= self.size
        self.size, self._hash = 0, hashlib.sha256()
        self.report()

    def add(self, chunk: bytes) -> None:
        """The next bytes of the blob. Raises ImageFault when they are too many."""
        if self.size + len(chunk) > self.descriptor.size:
            self.drop()
            raise ImageFault(f"blob {self.descriptor.digest} has more than its {self.descriptor.size} bytes")
        view = memoryview(chunk)
        while view:
            written = os.pwrite(self._file, view, self.size)
            self._hash.update(view[:written])
            view = view[written:]
            self.size += written
            self._unreported += written
        if time.monotonic() - self._last_report >= REPORT_SECONDS:
            self.report()

    def report(self) -> None:
        """Tell of what is untold."""
        count, self._unreported, self._last_report = self._unreported, 0, time.monotonic()
        if count:
            trio.from_thread.run_sync(self._on_bytes, count)

    def verify(self, encoding: str) -> None:
        """Raise ImageFault, and begin anew, when the whole is not what its digest says."""
        if not self.is_whole():
            digest, self_encoding = self._digest(), encoding.strip().lower()
            self.drop()
            told = f"; it was sent with Content-Encoding: {self_encoding[:40]}" if self_encoding else ""
            raise ImageFault(f"blob {self.descriptor.digest} is damaged: its bytes hash to {digest}{told}")

    def _digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()
