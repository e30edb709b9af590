"""Real machines: what they boot from was made by `make setup`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import trio

from trio_sandbox import Sandbox, open_sandbox
from trio_sandbox.home import Home


@pytest.fixture(scope="session", autouse=True)
def first_use() -> None:
    """The first sandbox of a data folder makes a template and the store, and the first that is started again a template
    without disks. They stay: no test should take them for a leak.
    """

    async def use() -> None:
        if any(handle.name == "first-use" for handle in await Sandbox.list()):  # an earlier run was killed here
            await Sandbox.remove("first-use")
        async with open_sandbox("first-use", image="local/base", keep=True):
            pass
        async with await Sandbox.start("first-use"):
            pass

    trio.run(use)


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
