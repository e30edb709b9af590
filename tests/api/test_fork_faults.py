"""A fork that comes to nothing: a typed error, no child, nothing left, and a parent that goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import trio

from tests.cancel_at import cancelled_at
from tests.real.traces import Traces, leaving_nothing
from trio_sandbox import CheckpointError, Home, Sandbox, SandboxError, StorageError, UnsupportedError, open_sandbox
from trio_sandbox import checkpoint as checkpoint_module
from trio_sandbox.checkpoint import take_checkpoint
from trio_sandbox.process.spawn import fork_server
from trio_sandbox.runtime import Runtime
from trio_sandbox.vm.checkpoint import Checkpoint
from trio_sandbox.vm.supervise import Machine

pytestmark = [pytest.mark.vm, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "small", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def inside(sandbox: Sandbox) -> tuple[Runtime, Machine]:
    runtime = sandbox._control
    assert isinstance(runtime, Runtime) and isinstance(runtime.machine, Machine)
    return runtime, runtime.machine


async def goes_on(sandbox: Sandbox) -> None:
    assert (await sandbox.exec("echo", ["still", "here"])).stdout_text == "still here\n"


async def test_a_full_disk_during_a_fork(home: Home, small_disk: Path) -> None:
    with leaving_nothing(home):
        async with open_sandbox("parent", image="local/base") as sandbox:
            runtime, machine = inside(sandbox)
            assert runtime.link is not None
            (small_disk / "filler").write_bytes(bytes(7 << 20))
            await sandbox.shell("head -c 4000000 /dev/urandom > /root/much; sync")
            with pytest.raises(StorageError):
                await take_checkpoint(machine, runtime.link, small_disk)
            await goes_on(sandbox)
            assert os.listdir(small_disk) == ["filler"]
            async with runtime.fork_source():  # and it can be forked when there is room
                pass


async def test_the_disk_fills_up_while_it_is_copied(
    home: Home, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "_make_room", lambda machine, upper, folder: os.ftruncate(upper, 4 << 30))
    with leaving_nothing(home):
        async with open_sandbox("parent", image="local/base") as sandbox:
            runtime, machine = inside(sandbox)
            assert runtime.link is not None
            await sandbox.shell("head -c 12000000 /dev/urandom > /root/much; sync")
            with pytest.raises(StorageError):
                await take_checkpoint(machine, runtime.link, small_disk)
            assert await machine.qmp.execute("query-jobs") == []
            await goes_on(sandbox)


async def test_an_agent_that_does_not_hold_still(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module, "FREEZE_TIMEOUT", 0.0)
    with leaving_nothing(home):
        async with open_sandbox("parent", image="local/base") as sandbox:
            runtime, _ = inside(sandbox)
            for _ in range(3):
                with pytest.raises(CheckpointError, match="did not hold still"):
                    async with runtime.fork_source():
                        raise AssertionError("not reached")
                await goes_on(sandbox)


async def test_cancelled_at_each_of_its_waits(home: Home) -> None:
    """Of the copy; what follows is a creation, which tests/api/test_cancelled_creation.py cancels."""

    async def copy() -> None:
        async with runtime.fork_source():
            await anyio.lowlevel.checkpoint()

    async with open_sandbox("parent", image="local/base") as sandbox:
        runtime, machine = inside(sandbox)
        await copy()
        with leaving_nothing(home):
            number = 0
            while await cancelled_at(number, copy):
                number += 1
                assert await machine.qmp.execute("query-jobs") == []
                assert (await machine.qmp.execute("query-status"))["status"] == "running"
                assert not runtime.link._holding  # type: ignore[union-attr]
            await goes_on(sandbox)
    assert number > 15


async def test_cancelled_while_the_children_come(home: Home) -> None:
    """At every fifth of its waits: those of the copy are tried above."""

    async def fork() -> None:
        for child in await sandbox.fork(2, name=["one", "two"]):
            async with child:
                pass

    async with open_sandbox("parent", image="local/base") as sandbox:
        await fork()
        before, number = Traces.take(home), 0
        while await cancelled_at(number, fork):
            number += 5
            await goes_on(sandbox)
            assert {handle.name for handle in await Sandbox.list()} == {"parent"}
        with trio.move_on_after(10):  # a process that has undone what it began is about to end
            while Traces.take(home) != before:
                await trio.sleep(0.01)
        Traces.take(home).assert_equal(before)
    assert number > 30


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1])
async def test_the_parent_is_killed_in_the_middle(home: Home, delay: float) -> None:
    await trio.to_thread.run_sync(fork_server)
    with leaving_nothing(home):
        parent = await Sandbox.create("parent", image="local/base")
        assert parent._control.ownership is not None  # type: ignore[attr-defined]
        process = parent._control.ownership.pid  # type: ignore[attr-defined]
        made: list[Sandbox] = []

        async def fork() -> None:
            try:
                made.append(await parent.fork(name="child"))
            except SandboxError:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fork)
            await trio.sleep(delay)
            os.kill(process, signal.SIGKILL)
        for child in made:  # it was whole before the blow: it lives on without its parent
            async with child:
                await goes_on(child)
        async with parent:
            pass
        for handle in await Sandbox.list():
            assert handle.name == "parent"
            await Sandbox.remove("parent")


async def test_what_holds_no_checkpoint_any_more(home: Home) -> None:
    async with open_sandbox("parent", image="local/base") as sandbox:
        runtime, _ = inside(sandbox)
        async with runtime.fork_source() as source:
            with Checkpoint.opened(source["checkpoint"]) as checkpoint:
                assert checkpoint.pages.extents()
            files = source["checkpoint"]["files"]
            wrong = {**source["checkpoint"], "files": {**files, "state": [files["base"][0], *files["state"][1:]]}}
            with pytest.raises(CheckpointError), Checkpoint.opened(wrong):  # as of a process that has its number
                raise AssertionError("not reached")
        with pytest.raises(CheckpointError), Checkpoint.opened(source["checkpoint"]):
            raise AssertionError("not reached")


async def test_a_disk_image_is_not_forked(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_sandbox("parent", image="local/base") as sandbox:
        inside(sandbox)[0].rootfs = None  # as of one that stands on a disk image
        with pytest.raises(UnsupportedError):
            await sandbox.fork()
