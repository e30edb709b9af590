"""Tests of the client half run on both backends; those of timing choose Trio and its virtual clock for themselves."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param
