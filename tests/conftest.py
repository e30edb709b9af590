"""Async tests run on Trio by anyio's plugin; a module that wants another backend or a virtual clock overrides the
fixture.
"""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "trio"
