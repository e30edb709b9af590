"""What is wrong with an image, before it is known whose fault it is.

The parsers below do not know under which name the user asked for the image. They raise `ImageFault`; `blame` at the
border turns it into the public error with the reference in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trio_sandbox.errors import ImageNotFoundError, InvalidImageError


class ImageFault(Exception):
    """The image is damaged, contradicts its digests, or is over a limit. The text says what and where."""


class NoSuchImage(Exception):
    """The image is sound, but holds nothing for this tag or this machine."""


def show(name: bytes) -> str:
    """A hostile name for a message: short and printable."""
    return ascii(name[:200].decode(errors="replace"))


@contextmanager
def blame(reference: str) -> Iterator[None]:
    """Raise InvalidImageError or ImageNotFoundError about `reference` for the private faults of the block."""
    try:
        yield
    except ImageFault as fault:
        raise InvalidImageError(reference, str(fault)) from fault
    except NoSuchImage as fault:
        raise ImageNotFoundError(reference, str(fault)) from fault
