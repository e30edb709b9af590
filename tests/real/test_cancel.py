"""Operations cancelled at each of their checkpoints against a real guest: no process, no control group is left in it.

The simulated guest has every operation (tests/testing/test_cancel.py); here are those that start processes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

import pytest
import trio

from tests.cancelling import cancelled_everywhere
from trio_sandbox import Sandbox, Stdin, open_sandbox
from trio_sandbox.runtime import Runtime

pytestmark = pytest.mark.anyio

CONTROL_GROUPS = "/sys/fs/cgroup/trio_sandbox"
CHILDREN = "/proc/1/task/1/children"
PATIENCE = 10.0


async def its_stream(sandbox: Sandbox) -> None:
    async with await sandbox.exec_stream("cat", stdin=Stdin.pipe()) as handle:
        sink = handle.take_stdin()
        assert sink is not None
        await sink.write(b"x" * 100_000)
        await sink.close()
        await handle.collect()


async def its_unread_output(sandbox: Sandbox) -> None:
    async with await sandbox.exec_stream("yes") as handle:
        await handle.recv()
        await handle.kill()
        await handle.wait()


OPERATIONS: dict[str, Callable[[Sandbox], Awaitable[object]]] = {
    "exec": lambda sb: sb.exec("true"),
    "daemons": lambda sb: sb.shell("setsid sleep 0.1 & sleep 0.1"),
    "stream": its_stream,
    "unread output": its_unread_output,
    "terminal": lambda sb: sb.exec("cat", stdin=b"typed\n", tty=True),
    "read": lambda sb: sb.fs.read("/proc/meminfo"),
    "write": lambda sb: sb.fs.write("/tmp/file", b"x" * 300_000),
}


async def test_an_operation_cancelled_anywhere_leaves_nothing_in_the_guest() -> None:
    async with open_sandbox("cancelled", image="local/base", memory=256) as sandbox:
        link = cast(Runtime, sandbox._control).link
        assert link is not None
        assert not await what_is_left(sandbox)

        async def check() -> None:
            with trio.move_on_after(PATIENCE):
                while await what_is_left(sandbox):
                    await trio.sleep(0.01)
            assert not await what_is_left(sandbox)
            assert not link.mux.open_sessions
            assert not link._sinks

        for name, operation in OPERATIONS.items():
            assert await cancelled_everywhere(partial(operation, sandbox), check) > 1, name
        files = await sandbox.fs.list("/tmp")
        assert {entry.name for entry in files} <= {"file"}, "no unfinished file is left"


async def what_is_left(sandbox: Sandbox) -> list[str]:
    """Control groups of sessions, and children of PID 1, without the helper that reads them and is in none."""
    groups = [entry.path for entry in await sandbox.fs.list(CONTROL_GROUPS) if entry.name.isdigit()]
    return groups + (await sandbox.fs.read_text(CHILDREN)).split()[1:]


async def test_the_check_can_fail() -> None:
    async with open_sandbox("uncancelled", image="local/base", memory=256) as sandbox:
        await sandbox.shell("setsid sleep 1000 > /dev/null & true")
        assert len(await what_is_left(sandbox)) == 2, "its control group, and itself"
