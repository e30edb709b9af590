"""How long to wait for a registry, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.image.registry.failures import Transient
from trio_sandbox.image.registry.retry import (
    MAX_DELAY,
    MAX_PROGRESS,
    MAX_RETRY_AFTER,
    Patience,
    delay,
    retry_after,
)

NOW = 1_764_000_000.0


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("5", 5.0),
        (" 0 ", 0.0),
        ("9" * 400, 999_999_999.0),
        ("Mon, 24 Nov 2025 16:00:30 GMT", 30.0),
        ("Mon, 24 Nov 2025 15:00:00 GMT", 0.0),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        ("Mon, 99 Nov 2025 16:00:30 GMT", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, lambda: NOW) == seconds


@given(st.text(max_size=60))
def test_retry_after_takes_anything(header: str) -> None:
    found = retry_after(header, lambda: NOW)
    assert found is None or found >= 0


@given(st.integers(0, 200), st.none() | st.floats(0, MAX_RETRY_AFTER), st.floats(0, 1))
def test_the_delay_is_bounded_and_never_less_than_asked(attempt: int, asked: float | None, luck: float) -> None:
    found = delay(attempt, asked, lambda: luck)
    assert (asked or 0) <= found <= max(MAX_DELAY, asked or 0)
    assert found >= 0.125


def test_delays_grow() -> None:
    assert [delay(attempt, None, lambda: 1.0) for attempt in range(8)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15]


@pytest.mark.anyio
async def test_patience_ends() -> None:
    patience, failure, began = Patience(3), Transient("busy"), trio.current_time()
    for _ in range(3):
        await patience.wait(failure)
    elapsed = trio.current_time() - began
    assert (0.25 + 0.5 + 1) / 2 <= elapsed <= 0.25 + 0.5 + 1
    with pytest.raises(Transient):
        await patience.wait(failure)
    patience.advance(MAX_PROGRESS - 1)
    with pytest.raises(Transient):
        await patience.wait(failure)
    patience.advance(1)
    await patience.wait(failure)


@pytest.mark.anyio
async def test_what_the_registry_asks_for() -> None:
    began = trio.current_time()
    await Patience(1).wait(Transient("busy", retry_after=50))
    assert trio.current_time() - began == 50
    with pytest.raises(Transient):
        await Patience(9).wait(Transient("busy", retry_after=MAX_RETRY_AFTER + 1))
