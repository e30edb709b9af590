"""Snapshots with memory: programs go on where they were, in another sandbox, at another time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from trio_sandbox import Sandbox, SandboxPausedError, Snapshot, SnapshotAlreadyExistsError, SnapshotError, open_sandbox

pytestmark = [pytest.mark.vm, pytest.mark.anyio]
COUNTING = "n=0; while :; do n=$((n+1)); echo $n > /run/count; sleep 0.02; done"


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


async def said(sandbox: Sandbox, script: str) -> str:
    return (await sandbox.shell(script)).stdout_text.strip()


async def count(sandbox: Sandbox) -> int:
    return int(await said(sandbox, "until [ -s /run/count ]; do :; done; cat /run/count") or 0)


@pytest.fixture
async def folder(tmp_path: Path, nothing_left: None) -> Path:
    place = tmp_path / "snapshots"
    place.mkdir()
    return place


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
async def test_programs_go_on_where_they_were(folder: Path) -> None:
    async with await Sandbox.create("origin", image="local/base") as origin:
        await origin.shell("echo on disk > /root/note; echo in memory > /dev/shm/note")
        await origin.shell(f"({COUNTING}) > /dev/null 2>&1 &")
        before = await count(origin)
        kept = await Snapshot.create("kept", "origin", memory=True, dest_dir=folder, labels={"a": "b"})
        assert (await origin.exec("true")).success
    assert (kept.kind, kept.source_sandbox, dict(kept.labels)) == ("memory", "origin", {"a": "b"})
    await kept.verify()
    moved = folder / "moved"
    os.rename(kept.path, moved)
    for name in ("one", "two"):
        async with await Sandbox.create(name, snapshot=moved) as again:
            assert await said(again, "cat /root/note /dev/shm/note; hostname") == f"on disk\nin memory\n{name}"
            first = await count(again)
            assert first >= before
            while await count(again) <= first:
                await anyio.sleep(0.01)
            await again.shell("echo other > /root/note")


async def test_of_a_block_and_of_a_machine_that_was_booted_cold(folder: Path) -> None:
    async with open_sandbox("cold", image="local/base", warm=False) as origin:
        await origin.shell("echo cold > /dev/shm/note")
        kept = await Snapshot.create("kept", origin, memory=True, dest_dir=folder)
    async with open_sandbox("again", snapshot=kept) as again:
        assert await said(again, "cat /dev/shm/note") == "cold"
        async with await again.fork() as child:
            assert await said(child, "cat /dev/shm/note") == "cold"


async def test_what_cannot_be_is_refused_before_anything_is_made(folder: Path) -> None:
    async with await Sandbox.create("origin", image="local/base") as origin:
        kept = await Snapshot.create("kept", "origin", memory=True, dest_dir=folder)
        with pytest.raises(SnapshotAlreadyExistsError):
            await Snapshot.create("kept", "origin", memory=True, dest_dir=folder)
        await origin.pause()
        with pytest.raises(SandboxPausedError):
            await Snapshot.create("other", "origin", memory=True, dest_dir=folder)
    wrong: list[dict[str, Any]] = [{"memory": 1024}, {"cpus": 2}]
    for options in wrong:
        with pytest.raises(SnapshotError, match="leave that option out"):
            await Sandbox.create("again", snapshot=kept, **options)
    description = json.loads((kept.path / "snapshot.json").read_text())
    description["machine"]["qemu_version"] = "0.9"
    (kept.path / "snapshot.json").write_text(json.dumps(description))
    with pytest.raises(SnapshotError, match=r"qemu_version 0\.9"):
        await Sandbox.create("again", snapshot=kept.path)
    os.truncate(kept.path / "devices.state", 100)
    with pytest.raises(SnapshotError):
        await Sandbox.create("again", snapshot=kept.path)
    assert os.listdir(folder) == ["kept"]
