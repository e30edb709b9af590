"""A data folder, and a sandbox in it that does not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.snapshot.stopped import stopped
from trio_sandbox.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def one(home: Home) -> str:
    """The name of a sandbox that does not run."""
    stopped(home, "one")
    return "one"
