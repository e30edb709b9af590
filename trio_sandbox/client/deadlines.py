"""The caller's deadline as the guest hears of it. anyio only."""

from __future__ import annotations

import math

import anyio

MARGIN = 0.25
"""Seconds by which the guest's deadline is later: the caller's own end comes first and is the one that is reported."""
MAX_MS = (1 << 53) - 1


def deadline_ms() -> int:
    """Milliseconds from now until shortly after the deadline of the scopes that we are in; 0 when there is none."""
    left = anyio.current_effective_deadline() - anyio.current_time()
    if left == math.inf:
        return 0
    return math.ceil(min(max((left + MARGIN) * 1000, 1), MAX_MS))  # a scope that was cancelled has its deadline at -inf
