"""Snapshots of sandboxes that are blocks of this program, and blocks that begin with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import said
from tests.real.traces import leaving_nothing
from trio_sandbox import Home, Sandbox, Snapshot, open_sandbox
from trio_sandbox.snapshot import store

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


async def test_the_command_line(home: Home, tmp_path: Path) -> None:
    with leaving_nothing(home):
        await said("create", "source", "--image", "local/base")
        await said("exec", "source", "--", "sh", "-c", "echo kept > /root/note")
        await said("stop", "source")
        await said("snapshot", "create", "built", "source")
        await said("rm", "source")
        try:
            assert await said("run", "--snapshot", "built", "cat", "/root/note") == "kept\n"
            await said("create", "one", "--snapshot", "built")
            assert "snapshot built" in await said("ls")
            assert await said("exec", "one", "--", "cat", "/root/note") == "kept\n"
            await said("rm", "-f", "one")
        finally:
            store.remove(home, "built")
