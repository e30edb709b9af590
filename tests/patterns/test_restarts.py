"""When something is started again. No clock: the times are given."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox import InvalidConfigError, RestartPolicy
from trio_sandbox.patterns.restarts import Restarts


def test_each_delay_is_longer_until_a_life_was_long_enough() -> None:
    policy = RestartPolicy(delay=1, factor=3, max_delay=20, jitter=0, reset_after=60, max_restarts=100)
    restarts = Restarts(policy)
    assert [restarts.next_delay(0, lived) for lived in (0, 1, 59, 0, 60, 0)] == [1, 3, 9, 20, 1, 3]
    assert restarts.count == 6


def test_only_those_within_the_window_count() -> None:
    restarts = Restarts(RestartPolicy(delay=0, max_restarts=2, window=10))
    assert [restarts.next_delay(now, 0) for now in (0, 5, 9.9, 10, 14, 15)] == [0, 0, None, 0, None, 0]
    assert Restarts(RestartPolicy(max_restarts=0)).next_delay(0, 0) is None


@given(st.floats(0, 1), st.integers(), st.integers(1, 3000))
def test_the_jitter_stays_in_its_bounds_and_nothing_overflows(jitter: float, seed: int, count: int) -> None:
    policy = RestartPolicy(delay=1, factor=10, max_delay=50, jitter=jitter, max_restarts=count)
    restarts = Restarts(policy, Random(seed))
    for number in range(count):
        delay = restarts.next_delay(0, 0)
        base = min(10**number, 50) if number < 5 else 50
        assert delay is not None and base * (1 - jitter) - 1e-9 <= delay <= base * (1 + jitter) + 1e-9
    assert restarts.next_delay(0, 0) is None


@pytest.mark.parametrize(
    ("options", "problems"),
    [
        ({"delay": -1, "jitter": 1.5, "factor": 0.5}, 3),
        ({"max_restarts": "many", "window": float("nan"), "reset_after": True}, 3),
        ({"restart": "sometimes"}, 1),
    ],
)
def test_a_policy_that_is_none_is_refused_with_all_that_is_wrong(options: dict[str, Any], problems: int) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        RestartPolicy(**options)
    assert len(caught.value.problems) == problems
