"""Folders of the host as roots of real machines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.commands import said as said_by
from tests.real import disks
from trio_sandbox import Image, Sandbox, open_sandbox
from trio_sandbox.home import Home
from trio_sandbox.image.folder import facts_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(disks.program("sqfs2tar") is None, reason="sqfs2tar is not installed"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return disks.unpack_small_root(Home.default(), tmp_path / "root")


def stamps(root: Path) -> list[tuple[int, ...]]:
    return [facts_of(path.lstat()) for path in (root, *sorted(root.rglob("*")))]


async def said(sandbox: Sandbox, script: str) -> str:
    output = await sandbox.shell(script)
    assert output.success, output.stderr_text
    return output.stdout_text


async def test_a_folder_boots_and_is_never_written_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    before = stamps(root)
    async with open_sandbox(f"folder-{os.getpid()}", image="./root", memory=256) as sandbox:
        assert "spawned" in sandbox.timings  # a clone, though its disks are its own
        await said(sandbox, "echo new > /new; echo changed > /etc/passwd")
        assert await said(sandbox, "cat /new /etc/passwd") == "new\nchanged\n"
    assert stamps(root) == before
    (root / "later").write_text("later\n")
    async with open_sandbox(f"folder-{os.getpid()}", image=Image.bind(root), memory=256) as sandbox:
        assert await said(sandbox, "cat /later; ls /") == "later\n" + "".join(
            f"{name}\n" for name in sorted({*os.listdir(root), "dev", "proc", "run", "sys", "tmp"})
        )


async def test_from_the_command_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    assert await said_by("run", "-m", "256", "./root", "--", "ls", "/etc/passwd") == "/etc/passwd\n"


async def test_a_sandbox_that_stays_stands_on_the_folder_as_it_was(root: Path) -> None:
    image = Image.bind(root, upper_size_mib=64)
    name = f"folder-{os.getpid()}-stays"
    async with await Sandbox.create(name, image=image, memory=256) as sandbox:
        await said(sandbox, "echo kept > /kept")
        await sandbox.stop()
        (root / "later").write_text("later\n")
        async with await Sandbox.start(name) as sandbox:
            assert await said(sandbox, "cat /kept; ls /later || echo none") == "kept\nnone\n"
            mounts = await said(sandbox, "cat /proc/mounts")
            assert "overlay / overlay" in mounts
