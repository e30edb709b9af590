"""How failures that were collected leave: a lone one bare. No I/O."""

from __future__ import annotations

from collections.abc import Sequence


def raise_all(message: str, failures: Sequence[Exception]) -> None:
    """Raise what there is: nothing, the only one, or a group of them."""
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup(message, failures)
