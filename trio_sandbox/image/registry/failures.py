"""What can go wrong between us and a registry, before it is known for which image.

None of the texts holds a secret: they are made of our own words, a status, and host names. `blame_registry` turns them
into the public errors, which say what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trio_sandbox.errors import ImageNotFoundError, ImagePullError, InvalidImageError
from trio_sandbox.image.faults import ImageFault, NoSuchImage


class RegistryFailure(Exception):
    """The registry did not do what it was asked for. status: the one of HTTP, None where it never came to that."""

    def __init__(self, message: str, *, status: int | None = None, hint: str = "") -> None:
        self.status = status
        self.hint = hint
        super().__init__(message)


class Transient(RegistryFailure):
    """It may work when it is tried again. retry_after: the seconds that the registry asked us to wait."""

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        hint = "try again later, or raise `retries` or the timeouts in registries.toml"
        super().__init__(message, status=status, hint=hint)


class Refused(RegistryFailure):
    """The registry will not: who we are, what we ask for, or how we reach it is wrong."""


class Missing(Refused):
    """The registry has no such thing."""


@contextmanager
def blame_registry(reference: str, registry: str) -> Iterator[None]:
    """Raise public errors about `reference` in `registry` for the private failures of the block."""
    try:
        yield
    except Missing as failure:
        raise ImageNotFoundError(reference, f"{registry}: {failure}; {failure.hint}") from None
    except RegistryFailure as failure:
        raise ImagePullError(
            reference, str(failure), registry=registry, status=failure.status, hint=failure.hint
        ) from None
    except ImageFault as fault:
        raise InvalidImageError(reference, f"{registry}: {fault}") from fault
    except NoSuchImage as fault:
        raise ImageNotFoundError(reference, f"{registry}: {fault}") from fault
