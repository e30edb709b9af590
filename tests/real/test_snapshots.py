"""Snapshots of sandboxes that are blocks of this program, and blocks that begin with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.traces import leaving_nothing
from trio_sandbox import Home, Sandbox, Snapshot, open_sandbox

pytestmark = pytest.mark.anyio


async def test_a_block_from_a_snapshot_and_a_snapshot_from_a_block(home: Home, tmp_path: Path) -> None:
    with leaving_nothing(home):
        async with open_sandbox("source", image="local/base", keep=True) as source:
            await source.shell("echo kept > /root/note")
        snapshot = await Snapshot.create("built", "source", dest_dir=tmp_path)
        await Sandbox.remove("source")
        async with open_sandbox("one", snapshot=tmp_path / "built") as one:
            await Snapshot.remove(snapshot)
            assert (await one.shell("cat /root/note")).stdout_text == "kept\n"
        async with open_sandbox("two", image="local/base") as two:
            assert not (await two.shell("cat /root/note")).success
