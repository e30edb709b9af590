"""Windows of one client: together never over its bytes, each never under its minimum, and all given back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.relay.budget import CLIENT_BYTES, CLIENT_SESSIONS, MIN_WINDOW, BudgetExceeded, Grant, WindowBudget
from trio_sandbox.relay.credit import WINDOW

WISHES = st.sampled_from((0, 1, MIN_WINDOW - 1, MIN_WINDOW, MIN_WINDOW + 1, 100_000, WINDOW)) | st.integers(0, WINDOW)


@given(st.lists(st.tuples(WISHES, WISHES) | st.integers(0, 63), max_size=150))
def test_any_order_of_granting_and_giving_back(script: list[tuple[int, int] | int]) -> None:
    budget, whole = WindowBudget(), WindowBudget()
    grants: list[Grant] = []
    for step in script:
        if isinstance(step, int):
            if grants:
                budget.give_back(grants.pop(step % len(grants)))
        elif len(grants) == CLIENT_SESSIONS:
            with pytest.raises(BudgetExceeded):
                budget.grant(*step)
        else:
            grants.append(budget.grant(*step))
            for wish, size in zip(step, (grants[-1].window, grants[-1].stdin_window), strict=True):
                assert min(wish, MIN_WINDOW) <= size <= wish
        assert sum(grant.window + grant.stdin_window for grant in grants) <= CLIENT_BYTES
        assert budget.sessions == len(grants)
    for grant in grants:
        budget.give_back(grant)
    assert (budget.sessions, budget.shared) == (whole.sessions, whole.shared)


def test_all_sessions_at_their_largest_fit() -> None:
    budget = WindowBudget()
    grants = [budget.grant(WINDOW, WINDOW) for _ in range(CLIENT_SESSIONS)]
    assert min(min(grant.window, grant.stdin_window) for grant in grants) >= MIN_WINDOW
    assert sum(grant.window + grant.stdin_window for grant in grants) <= CLIENT_BYTES


def test_many_sessions_share_what_is_left_over() -> None:
    budget = WindowBudget()
    windows = [budget.grant(WINDOW, 0).window for _ in range(10)]
    assert min(windows) > 4 * MIN_WINDOW


def test_a_lone_session_is_fast() -> None:
    assert WindowBudget().grant(WINDOW, 0).window == WINDOW
