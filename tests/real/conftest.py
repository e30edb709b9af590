"""Real machines: what they boot from was made by `make setup`."""

from __future__ import annotations

import pytest

from trio_sandbox.home import Home

IMAGE = "local/base"


@pytest.fixture
def home() -> Home:
    return Home.default()
