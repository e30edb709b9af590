"""Forks of real machines: what a child has of its parent, what it has not, and that the parent goes on."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from trio_sandbox import (
    ExecFailedError,
    InvalidConfigError,
    Sandbox,
    SandboxAlreadyExistsError,
    SandboxDrainingError,
    SandboxPausedError,
    Stdin,
)

pytestmark = [pytest.mark.vm, pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]

COUNTING = "n=0; while :; do n=$((n+1)); echo $n > /run/count; sleep 0.02; done"
"""A program in the middle of something."""


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


async def parent(**options: Any) -> Sandbox:
    return await Sandbox.create("parent", image="local/base", **options)


async def said(sandbox: Sandbox, script: str) -> str:
    return (await sandbox.shell(script)).stdout_text.strip()


async def count(sandbox: Sandbox) -> int:
    return int(await said(sandbox, "until [ -s /run/count ]; do :; done; cat /run/count") or 0)


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
async def test_a_child_goes_on_where_its_parent_is() -> None:
    async with await parent(env={"WHO": "parent"}) as sandbox:
        await sandbox.shell("echo on disk > /root/note; echo in memory > /dev/shm/note")
        await sandbox.shell(f"({COUNTING}) > /dev/null 2>&1 &")
        before = await count(sandbox)
        async with await sandbox.fork(name="child", env={"WHO": "child"}) as child:
            assert await said(child, "cat /root/note /dev/shm/note; echo $WHO; hostname") == (
                "on disk\nin memory\nchild\nchild"
            )
            first = await count(child)
            assert first >= before
            while await count(child) <= first:  # the program runs there, too
                await anyio.sleep(0.01)
            await child.shell("echo child > /root/note")
            assert await said(sandbox, "cat /root/note; hostname") == "on disk\nparent"
        assert await said(sandbox, "cat /root/note") == "on disk"
        first = await count(sandbox)
        while await count(sandbox) <= first:
            await anyio.sleep(0.01)


async def test_children_of_one_moment_are_of_one_state_and_not_alike() -> None:
    script = "cat /run/now /etc/machine-id; head -c 8 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid"
    async with await parent() as sandbox:
        await sandbox.shell("cat /proc/uptime > /run/now")
        children = await sandbox.fork(3)
        answers = [await said(one, script) for one in (sandbox, *children)]
        names = [await child.name for child in children]
        for child in children:
            async with child:
                pass
    moments, *own = zip(*(answer.splitlines() for answer in answers), strict=True)
    assert len(set(moments)) == 1
    assert all(len(set(values)) == 4 for values in own), own
    assert len(set(names)) == 3 and all(name.startswith("parent-fork-") for name in names)


async def test_a_child_is_on_time() -> None:
    async with await parent() as sandbox:
        await sandbox.pause()
        await anyio.sleep(1.2)
        await sandbox.resume()
        async with await sandbox.fork() as child:
            ours, theirs = await said(sandbox, "date +%s.%N"), await said(child, "date +%s.%N")
    assert 0 <= float(theirs) - float(ours) < 5


async def test_sessions_stay_with_the_parent() -> None:
    async with await parent() as sandbox:
        script = "echo up; read x; echo $x; read x; echo $x > /run/got"
        program = await sandbox.exec_stream("sh", ["-c", script], stdin=Stdin.pipe())
        stdin = program.take_stdin()
        assert stdin is not None and await program.wait_until_started()
        async with await sandbox.fork() as child:
            assert await child.sessions() == ()
            with pytest.raises(ExecFailedError) as refused:
                await child.attach_session(program.session_id)
            assert refused.value.kind == "stayed_with_parent"
            assert "forked from 'parent'" in "".join(entry.text() for entry in await child.logs(sources=["system"]))
            # Its input ends there, and what it writes is dropped; neither stands still.
            assert await said(child, "until [ -e /run/got ]; do sleep 0.01; done; cat /run/got") == ""
        await stdin.write(b"to the parent\nand again\n")
        result = await program.collect()
        assert "to the parent" in result.stdout_text
        assert await said(sandbox, "cat /run/got") == "and again"


async def test_a_child_can_be_forked_and_its_parent_can_go() -> None:
    async with await parent() as sandbox:
        await sandbox.shell("echo 1 >> /root/generations")
        first = await sandbox.fork(name="first")
    async with first:
        await first.shell("echo 2 >> /root/generations")
        second = await first.fork(name="second")
    async with second:
        await second.shell("echo 3 >> /root/generations")
        assert await said(second, "cat /root/generations") == "1\n2\n3"


async def test_a_child_stays_as_its_parent_does() -> None:
    async with await parent() as sandbox:
        await sandbox.shell("echo kept > /root/note")
        child = await sandbox.fork(name="kept", detached=True)
        await child.shell("sync")
        await child.stop()
        await child.detach()
    async with await Sandbox.start("kept") as again:
        assert await said(again, "cat /root/note; hostname") == "kept\nkept"


async def test_two_forks_at_once_take_their_turns() -> None:
    async with await parent() as sandbox:
        made: list[Sandbox] = []

        async def fork() -> None:
            made.append(await sandbox.fork())

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(fork)
        for child in made:
            async with child:
                assert await said(child, "echo there") == "there"


async def test_a_full_machine_is_forked_whole() -> None:
    """More has changed than there was room for beforehand."""
    async with await parent() as sandbox:
        await sandbox.shell("head -c 60000000 /dev/urandom > /dev/shm/much; sha256sum /dev/shm/much > /root/sum")
        async with await sandbox.fork() as child:
            assert (await child.shell("sha256sum -c /root/sum")).success


async def test_a_machine_that_was_booted_cold_is_forked_too() -> None:
    async with await parent(warm=False) as sandbox:
        await sandbox.shell("echo cold > /dev/shm/note")
        async with await sandbox.fork() as child:
            assert await said(child, "cat /dev/shm/note") == "cold"


async def test_what_cannot_be_forked_is_refused() -> None:
    async with await parent() as sandbox:
        with pytest.raises(InvalidConfigError) as refused:
            await sandbox.fork(2, name=["a", "a"], memory=256, image="local/base")
        assert len(refused.value.problems) == 3
        with pytest.raises(InvalidConfigError):
            await sandbox.fork(0)
        with pytest.raises(InvalidConfigError):
            await sandbox.fork(name="not a name")
        with pytest.raises(InvalidConfigError) as wrong:
            await sandbox.fork(2, name=["-", "fine"], env={"A": 1}, idle_timeout=-1)
        assert len(wrong.value.problems) == 3
        with pytest.raises(InvalidConfigError):
            await sandbox.fork(name=5)  # type: ignore[call-overload]
        with pytest.raises(SandboxAlreadyExistsError):
            await sandbox.fork(name="parent")
        with pytest.raises(SandboxAlreadyExistsError):  # and of the other child nothing is left
            await sandbox.fork(2, name=["other", "parent"])
        await sandbox.pause()
        with pytest.raises(SandboxPausedError):
            await sandbox.fork()
        await sandbox.resume()
        program = await sandbox.exec_stream("sleep", ["1000"])
        await sandbox.drain()
        with pytest.raises(SandboxDrainingError):
            await sandbox.fork()
        await program.kill()
