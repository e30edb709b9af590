"""Sandboxes and the processes around them: who dies with whom, and who does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from trio_sandbox import Home, Sandbox
from trio_sandbox.process.spawn import fork_server

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]
ROOT = Path(__file__).parents[2]

CREATOR = """
import os, sys, time
import anyio
from trio_sandbox import Sandbox

async def main():
    sb = await Sandbox.create("other", image="local/base", detached={detached})
    await sb.shell("echo kept > /root/note")
    {then}
    print("ready", flush=True)
    await anyio.sleep_forever()

anyio.run(main, backend={backend!r})
"""


@contextmanager
def program(code: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs `code`, once it has said that it is ready."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def backend(anyio_backend: str) -> str:
    return anyio_backend


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_an_attached_one_stops_with_its_creator_however_that_dies(backend: str, number: signal.Signals) -> None:
    with program(CREATOR.format(detached=False, then="", backend=backend)) as creator:
        handle = await Sandbox.get("other")
        creator.send_signal(number)
        with anyio.fail_after(20):
            await handle.wait_until_stopped()
    (run,) = await handle.runs()
    assert (run.state, run.reason, run.exit_code) == ("stopped", "parent-gone", 0)
    again = await handle.start()
    async with again:
        assert (await again.exec("cat", ["/root/note"])).stdout_text == "kept\n"


async def test_a_fork_of_the_creator_does_not_keep_it(backend: str) -> None:
    """It holds everything of the creator's open, and lives on; it cannot be told apart but by the creator's pid."""
    fork = "print(child, file=sys.stderr, flush=True) if (child := os.fork()) else time.sleep(1000)"
    with program(CREATOR.format(detached=False, then=fork, backend=backend)) as creator:
        assert creator.stderr is not None
        child = int(creator.stderr.readline())
        try:
            handle = await Sandbox.get("other")
            creator.kill()
            with anyio.fail_after(20):
                await handle.wait_until_stopped()
        finally:
            os.kill(child, signal.SIGKILL)
    assert (await handle.runs())[0].reason == "parent-gone"
    await handle.remove()


@pytest.mark.parametrize("then", ["", "await sb.detach()"])
async def test_a_detached_one_survives_its_creator(backend: str, then: str) -> None:
    with program(CREATOR.format(detached=True, then=then, backend=backend)) as creator:
        creator.kill()
        creator.wait()
    handle = await Sandbox.get("other")
    assert handle.status == "running"
    async with await handle.connect() as sb:
        assert (await sb.exec("cat", ["/root/note"])).stdout_text == "kept\n"
    await handle.stop()
    assert handle.status == "stopped"
    await handle.remove()


async def test_an_attached_one_that_was_detached_survives_too(backend: str) -> None:
    with program(CREATOR.format(detached=False, then="await sb.detach()", backend=backend)) as creator:
        creator.kill()
        creator.wait()
    handle = await Sandbox.get("other")
    async with await handle.connect() as sb:
        assert (await sb.exec("true")).success
    await handle.kill()
    await handle.remove()


async def test_an_attached_one_can_be_started_detached(backend: str) -> None:
    code = CREATOR.format(
        detached=False, then="await sb.stop(); sb = await Sandbox.start('other', detached=True)", backend=backend
    )
    with program(code) as creator:
        creator.kill()
        creator.wait()
    handle = await Sandbox.get("other")
    async with await handle.connect() as sb:
        assert (await sb.exec("cat", ["/root/note"])).stdout_text == "kept\n"
    await handle.stop()
    await handle.remove()


async def test_a_sandbox_of_open_sandbox_is_found_and_belongs_to_its_block(home: Home) -> None:
    from trio_sandbox import SandboxStillRunningError, UnsupportedError

    code = """
        import trio
        from trio_sandbox import open_sandbox

        async def main():
            async with open_sandbox("in-tree", image="local/base"):
                print("ready", flush=True)
                await trio.sleep_forever()

        trio.run(main)
    """
    with program(code) as owner:
        handle = await Sandbox.get("in-tree")
        assert handle.status == "running"
        for call in (handle.connect, handle.kill, handle.stop):
            with pytest.raises(UnsupportedError, match="listen="):
                await call()
        with pytest.raises(SandboxStillRunningError):
            await handle.remove()
        owner.kill()
        with anyio.fail_after(20):
            await handle.wait_until_stopped()
    assert await Sandbox.list() == []


async def test_a_second_one_is_forked_and_not_started() -> None:
    """All sandbox processes are children of one fork server, which has imported everything once."""
    server = fork_server()
    async with await Sandbox.create("first", image="local/base"), await Sandbox.create("second", image="local/base"):
        owners = [handle._row.owner for handle in await Sandbox.list()]
        parents = []
        for owner in owners:
            assert owner is not None
            status = Path(f"/proc/{owner.pid}/status").read_text()
            parents.append(int(status.split("PPid:")[1].split()[0]))
        assert parents == [server._process.pid] * 2
        assert fork_server() is server


async def test_creating_is_seen_while_it_boots() -> None:
    async with Sandbox.create_with_progress("slow", image="local/base", warm=False) as session:
        assert (await anext(session.progress)).event_type == "resolving"
        handle = await Sandbox.get("slow")
        assert handle.status == "creating"
        assert await handle.runs() == []
        sb = await session.result()
        assert (await handle.refresh()).status == "running"
        async with sb:
            pass


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_program_on_asyncio_does_not_load_trio() -> None:
    code = """
        import sys, asyncio
        from trio_sandbox import Sandbox, SandboxNotFoundError

        async def main():
            async with await Sandbox.create("alone", image="local/base") as sb:
                assert (await sb.exec("true")).success
                assert (await Sandbox.list())[0].status == "running"
                await sb.fs.write("/root/note", "text")
                await sb.metrics()
            print([name for name in sys.modules if name.split(".")[0] in ("trio", "outcome")], flush=True)

        asyncio.run(main())
    """
    done = await anyio.run_process([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], cwd=ROOT)
    assert done.stdout == b"[]\n"
