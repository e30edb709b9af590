"""Real machines: what they boot from was made by `make setup`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from trio_sandbox.home import Home


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left in the temporary folder is ours, whatever else this machine does meanwhile."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


@pytest.fixture
def home() -> Home:
    return Home.default()
