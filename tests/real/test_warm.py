"""Clones of warm templates: the same sandbox as a cold boot gives, and each a machine of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.relay.scripted import open_session
from trio_sandbox import Home, Sandbox, SandboxConfig, Stdin, open_sandbox
from trio_sandbox import machine as machine_module
from trio_sandbox.client.program import ExecHandle
from trio_sandbox.files import closing_descriptor
from trio_sandbox.host.ready import host_assets
from trio_sandbox.image.rootfs import prepare_rootfs
from trio_sandbox.image.upper import create_upper
from trio_sandbox.machine import MachinePlan, serve_machine
from trio_sandbox.relay.link import AgentLink
from trio_sandbox.relay.messages import (
    Exec,
    Shutdown,
)
from trio_sandbox.service import service
from trio_sandbox.state.places import store_of
from trio_sandbox.vm.templates import TemplateStore

from ..processes import ended
from .traces import leaving_nothing, machines

pytestmark = pytest.mark.anyio

CLONES = 50


@pytest.fixture
def own_templates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TemplateStore:
    """A store of the test's own, empty."""
    folder = tmp_path / "templates"
    folder.mkdir()
    store = TemplateStore(folder)
    monkeypatch.setattr(machine_module, "_store", lambda home: store)
    return store


@asynccontextmanager
async def warm(name: str, **options: Any) -> AsyncIterator[Sandbox]:
    """A sandbox that must have been cloned."""
    async with open_sandbox(name, image="local/base", **options) as sandbox:
        assert "spawned" in sandbox.timings, "it booted cold"
        yield sandbox


async def test_50_clones_are_50_machines() -> None:
    """Nothing that must be unique is shared: random bytes, uuids, boot id, machine id, host name."""
    code = "import os, uuid; print(os.getrandom(32).hex(), open('/dev/urandom','rb').read(32).hex(), uuid.uuid4())"
    seen: list[list[str]] = []

    async def one(number: int, limit: trio.CapacityLimiter) -> None:
        async with limit, warm(f"clone-{number}", memory=256) as sandbox:
            output = await sandbox.exec("python3", ["-c", code])
            ids = await sandbox.shell("cat /proc/sys/kernel/random/boot_id /etc/machine-id; hostname")
            words = (output.stdout_text + ids.stdout_text).split()
            assert words[-1] == f"clone-{number}"
            seen.append(words)

    async with warm("first", memory=256):  # builds the template, if it is not there, for all others
        pass
    limit = trio.CapacityLimiter(4)
    async with trio.open_nursery() as nursery:
        for number in range(CLONES):
            nursery.start_soon(one, number, limit)
    for column in zip(*seen, strict=True):
        assert len(set(column)) == CLONES


async def test_clones_do_not_see_each_others_files_nor_memory() -> None:
    async with warm("one") as one, warm("two") as two:
        await one.shell("echo secret > /root/file; mkdir /srv/made; sync")
        assert (await two.shell("cat /root/file; ls -d /srv/made")).stdout_bytes == b""
        assert (await one.shell("cat /root/file")).stdout_text == "secret\n"
        big = (
            "dd if=/dev/urandom of=/root/big bs=1M count=40 2>/dev/null; sync; "
            "sha256sum < /root/big; echo 3 > /proc/sys/vm/drop_caches; sha256sum < /root/big"
        )
        for sandbox in (one, two):
            first, second = (await sandbox.shell(big)).stdout_text.split("  -\n")[:2]
            assert first == second


async def test_the_clock_is_the_hosts() -> None:
    async with warm("clock") as sandbox:
        seen = float((await sandbox.exec("date", ["+%s.%N"])).stdout_text)
        assert abs(seen - time.time()) < 1.0


async def test_the_disk_of_a_clone_is_sound(home: Home) -> None:
    """The file system that was mounted in the template goes on cleanly on the clone's own disk."""
    async with warm("disk") as sandbox:
        await sandbox.shell("cp -r /usr/share /root/copy; sync; rm -rf /root/copy; sync")
        assert (await sandbox.shell("dmesg | grep -iE 'ext4.*(error|corrupt)|I/O error'")).stdout_text == ""


async def test_cold_gives_the_same_sandbox() -> None:
    facts = "uname -r; hostname; id; pwd; env | sort; mount | sort; ls /; cat /etc/hosts; stat -c %a /tmp"
    seen = []
    for choice in (True, False):
        async with open_sandbox("same", image="local/base", warm=choice) as sandbox:
            assert ("spawned" in sandbox.timings) is choice
            seen.append((await sandbox.shell(facts)).stdout_text)
    assert seen[0] == seen[1]


async def test_a_template_is_built_once_and_remade_when_damaged(own_templates: TemplateStore, home: Home) -> None:
    async with warm("builder", memory=256) as sandbox:
        assert "template" in sandbox.timings
    (key,) = own_templates.keys()
    async with warm("user", memory=256) as sandbox:
        assert "template" not in sandbox.timings
    os.truncate(own_templates._path(key, "ram"), 1 << 20)
    with leaving_nothing(home):
        async with warm("mender", memory=256) as sandbox:
            assert "template" in sandbox.timings
            assert (await sandbox.exec("true")).success
    async with warm("other", memory=320):
        assert len(own_templates.keys()) == 2  # another machine, another template


async def test_a_template_that_does_not_start_is_discarded_and_the_cold_path_taken(
    own_templates: TemplateStore, home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    async with warm("builder", memory=256):
        pass
    (key,) = own_templates.keys()
    path = own_templates._path(key, "state")
    before = path.stat()
    path.write_bytes(os.urandom(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # looks untouched
    with leaving_nothing(home):
        async with open_sandbox("falls-back", image="local/base", memory=256) as sandbox:
            assert "hello" in sandbox.timings
            assert (await sandbox.exec("true")).success
    assert "its template is discarded" in caplog.text
    assert own_templates.keys() == frozenset()


async def test_without_room_for_a_template_the_sandbox_boots_cold(
    own_templates: TemplateStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine_module, "SPARE_ROOM", 1 << 60)
    async with open_sandbox("poor", image="local/base", memory=256) as sandbox:
        assert "hello" in sandbox.timings
    assert "MiB are free" in caplog.text
    assert own_templates.keys() == frozenset()


BUILDERS = """
import sys, trio
from pathlib import Path
from trio_sandbox import machine, open_sandbox
from trio_sandbox.vm.templates import TemplateStore
machine._store = lambda home: TemplateStore(Path(sys.argv[1]))

async def main():
    async with open_sandbox(sys.argv[2], image="local/base", memory=256) as sandbox:
        print(sorted(sandbox.timings), flush=True)

trio.run(main)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For the templates of other processes."""
    made = tmp_path / "templates"
    made.mkdir()
    return made


async def output_of(link: AgentLink, script: str) -> str:
    """Run a script on a bare link."""
    request = Exec((b"sh", b"-c", script.encode()), (b"PATH=/usr/bin:/bin",))
    return (await ExecHandle(open_session(link, request), Stdin.null(), None).collect()).stdout_text


@pytest.mark.parametrize("choice", [True, False])
async def test_a_sandbox_with_a_disk_of_its_own_keeps_what_it_wrote(
    own_templates: TemplateStore, home: Home, choice: bool
) -> None:
    """Three machines in turn on one disk: from a blank template when warm, since nothing may be mounted in it yet."""
    config = SandboxConfig.from_options("owner", {"image": "local/base", "memory": 256, "warm": choice})
    assets, rootfs = await host_assets(home), await prepare_rootfs("local/base", home)
    with (
        closing_descriptor(os.open(rootfs.path, os.O_RDONLY)) as base,
        closing_descriptor(await create_upper(home)) as upper,
    ):
        for number in range(3):
            marks: list[str] = []
            plan = MachinePlan(config, home, assets, rootfs, base, upper, mark=marks.append)
            async with service(serve_machine, plan) as (machine, link):
                assert marks[-1] == ("spawned" if choice else "hello")
                assert await output_of(link, "cat /root/visits") == "visit\n" * number
                assert await output_of(link, "echo visit >> /root/visits; hostname") == "owner\n"
                link.send(Shutdown(1000))
                with trio.fail_after(20):
                    await machine.exited.wait()
                assert machine.exit is not None
                assert machine.exit.shutdown_reason == "guest-shutdown"
    assert len(own_templates.keys()) == (1 if choice else 0)


async def test_several_processes_build_it_once(folder: Path) -> None:
    argv = [sys.executable, "-c", BUILDERS, str(folder)]
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen([*argv, f"builder-{number}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root)
        for number in range(3)
    ]
    for process in processes:
        out, err = await trio.to_thread.run_sync(process.communicate)
        assert process.returncode == 0, err
        assert b"spawned" in out
    assert len(TemplateStore(folder).keys()) == 1
    assert {path.suffix for path in folder.iterdir()} == {".ram", ".state", ".upper", ".kernel", ".json"}
    assert len(list(folder.iterdir())) == 5


async def test_a_builder_that_is_killed_leaves_nothing_that_counts(folder: Path, home: Home) -> None:
    before = machines(home)
    argv = [sys.executable, "-c", BUILDERS, str(folder), "victim"]
    with ended(subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])) as process:
        with trio.fail_after(60):
            while machines(home) == before:
                await trio.sleep(0.02)
        await trio.sleep(1)
        process.kill()
    with trio.fail_after(10):
        while machines(home) - before:
            await trio.sleep(0.02)
    assert list(folder.iterdir()) == []
    store_of(home).reconcile()  # its row and its logs, if it got that far, go when anybody looks


async def test_a_clone_whose_host_vanished_does_not_live_on(home: Home) -> None:
    code = BUILDERS.replace("print(", "__import__('os').kill(__import__('os').getpid(), 9); print(")
    async with warm("first", memory=256):
        pass
    with leaving_nothing(home):
        folder = str(home.folder("templates"))
        argv = [sys.executable, "-c", code, folder, "orphan"]
        with ended(subprocess.Popen(argv, cwd=Path(__file__).parents[2])) as process:
            await trio.to_thread.run_sync(process.wait)
        assert process.returncode == -signal.SIGKILL
        with trio.fail_after(20):
            while machines(home):
                await trio.sleep(0.02)
        assert "orphan" in store_of(home).reconcile()  # its row and its logs go when anybody looks
