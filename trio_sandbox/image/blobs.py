"""Stored bytes of an image, wherever they are: a whole file of a layout, or a part of an archive."""

from __future__ import annotations

import os
from typing import Protocol

import attrs

from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.oci import Image, Layer


@attrs.frozen(eq=False)
class Blob:
    """A range of an open file. The descriptor is borrowed from the store that opened it."""

    name: str
    """For messages: a digest or an archive's member."""
    descriptor: int
    offset: int
    size: int
    is_verified: bool = attrs.field(default=False, kw_only=True)
    """Whether it was seen to hash to its digest when it came. What it unpacks to is verified all the same."""

    def read_at(self, offset: int, amount: int) -> bytes:
        """Up to `amount` bytes at `offset` of the blob, fewer only at its end. Raises ImageFault when it was cut."""
        amount = min(amount, self.size - offset)
        if amount <= 0:
            return b""
        data = os.pread(self.descriptor, amount, self.offset + offset)
        while len(data) < amount:
            more = os.pread(self.descriptor, amount - len(data), self.offset + offset + len(data))
            if not more:
                raise ImageFault(f"{self.name} ends after {offset + len(data)} of {self.size} bytes")
            data += more
        return data

    def version(self) -> tuple[int, int]:
        """Changes when the file under the blob is written to."""
        status = os.fstat(self.descriptor)
        return status.st_size, status.st_mtime_ns


class ImageStore(Protocol):
    """An opened image: what it is, and its layers' bytes. Closing the store closes the blobs."""

    def image(self) -> Image:
        """The image for this machine. Reads a few kilobytes."""
        ...

    def layer(self, layer: Layer) -> Blob:
        """The stored bytes of one layer, not checked yet."""
        ...

    def close(self) -> None: ...
