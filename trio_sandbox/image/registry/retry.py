"""Which failures of a registry may pass by themselves, and how long to wait for that."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable
from typing import TypeVar

import attrs
import trio

from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.registry.calls import interruptible
from trio_sandbox.image.registry.failures import Transient

T = TypeVar("T")

FIRST_DELAY = 0.25
"""Seconds before the first further try; twice as long before each that follows."""
MAX_DELAY = 15.0
MAX_RETRY_AFTER = 60.0
"""Seconds that a registry may ask us to wait; one that asks for more is not asked again."""
MAX_PROGRESS = 1 << 20
"""Bytes that must come before failures are counted anew."""
DAMAGED_TRIES = 2
"""What arrives whole and wrong is asked for so often; what is wrong again will stay so."""


def retry_after(value: str | None, now: Callable[[], float] = time.time) -> float | None:
    """The seconds that a Retry-After header asks for, in either of its forms; None for none and for nonsense."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def delay(attempt: int, asked: float | None, jitter: Callable[[], float] = random.random) -> float:
    """Seconds before the further try number `attempt`, from 0 on; at least what the registry asked for.

    Half of the delay is left to chance, so that clients that failed together do not come back together.
    """
    growing = min(MAX_DELAY, FIRST_DELAY * float(1 << min(attempt, 16)))
    return max(growing * (0.5 + 0.5 * jitter()), asked or 0.0)


@attrs.define(eq=False)
class Patience:
    """The further tries of one piece of work."""

    retries: int
    failures: int = 0
    progress: int = 0

    async def wait(self, failure: Transient) -> None:
        """Sleep before the next try. Raises `failure` where there shall be none."""
        asked = failure.retry_after
        if self.failures >= self.retries or (asked is not None and asked > MAX_RETRY_AFTER):
            raise failure
        await trio.sleep(delay(self.failures, asked))
        self.failures += 1

    def advance(self, count: int) -> None:
        """`count` bytes came: a long download over a bad line is not given up while it gets on."""
        self.progress += count
        if self.progress >= MAX_PROGRESS:
            self.progress = self.failures = 0


async def patiently(work: Callable[[], T], patience: Patience) -> T:
    """Run blocking `work` in a thread until it succeeds or fails for good.

    Raises the last Transient or ImageFault, and at once everything else. Cancellation: as of `interruptible`.
    """
    damaged = 0
    while True:
        try:
            return await interruptible(work)
        except Transient as error:
            failure = error
        except ImageFault:
            damaged += 1
            if damaged == DAMAGED_TRIES:
                raise
            continue
        await patience.wait(failure)
