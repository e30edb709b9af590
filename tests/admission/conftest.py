"""A data folder with limits of its own; virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from trio_sandbox.home import Home


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """1000 MiB, two boots and three sandboxes for all."""
    home = Home(tmp_path / "home")
    home.root.mkdir()
    set_limits(home, memory=1000, boots=2, sandboxes=3)
    return home


def set_limits(home: Home, **limits: int) -> None:
    (home.root / "limits.toml").write_text("".join(f"{key} = {value}\n" for key, value in limits.items()))
