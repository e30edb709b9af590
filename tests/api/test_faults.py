"""kill -9, of anybody, at any moment: afterwards nothing runs, every row says the truth, and all can be begun again.

The moments are drawn from a seed; where exactly they fall depends on the machine, which is the point.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from tests.processes import ended
from tests.real.traces import machines, users
from trio_sandbox import Home, Sandbox, SandboxError

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]
ROOT = Path(__file__).parents[2]
NAMES = ("one", "two")
LONGEST_LIFE = 1.2
"""Seconds within which the blow falls: from before the fork to the second end of a whole lifecycle."""
END_TIMEOUT = 30.0


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


async def lifecycle(name: str) -> None:
    """From nothing, through two runs, to nothing."""
    async with await Sandbox.create(name, image="local/base", replace_with_timeout=0) as first:
        await first.shell("echo kept > /root/note")
        await first.stop()
        async with await Sandbox.start(name) as second:
            await second.exec("cat", ["/root/note"])
            await second.pause()
            await second.resume()
            await second.drain()
            await second.wait()


APPLICATION = """
    import sys, trio
    from tests.api.test_faults import NAMES, lifecycle

    async def forever(name):
        while True:
            await lifecycle(name)

    async def main():
        print("ready", flush=True)
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                nursery.start_soon(forever, name)

    trio.run(main)
"""


def strike(victims: set[int]) -> int:
    """Kill them all, and say how many there were."""
    struck = 0
    for victim in victims:
        try:
            os.kill(victim, signal.SIGKILL)
            struck += 1
        except ProcessLookupError:
            pass
    return struck


def vmms(home: Home) -> set[int]:
    return machines(home)


def sandbox_processes(home: Home) -> set[int]:
    return users(home) - machines(home)


async def struck_within(find: Callable[[], set[int]], delay: float) -> int:
    """Live a whole life in this process, and have somebody of it killed in the middle; how many that were."""
    struck: list[int] = []

    async def live() -> None:
        try:
            await lifecycle("one")
        except* SandboxError:  # a typed error, whatever was killed; anything else fails the test
            pass

    async with anyio.create_task_group() as group:
        group.start_soon(live)
        await anyio.sleep(delay)
        struck.append(strike(find()))
    return sum(struck)


async def struck_application(home: Home, delay: float, *, everybody: bool) -> int:
    """Have a whole application killed, alone or with all its sandboxes."""
    argv = [sys.executable, "-c", textwrap.dedent(APPLICATION)]
    with ended(subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT)) as application:
        assert application.stdout is not None
        await anyio.to_thread.run_sync(application.stdout.readline)
        await anyio.sleep(delay)
        return strike({application.pid} | (users(home) if everybody else set()))


async def assert_all_is_well(home: Home) -> None:
    """Nothing runs, nobody claims to, and whatever is left can be removed."""
    with anyio.fail_after(END_TIMEOUT):
        while any(handle.status not in ("stopped", "crashed") for handle in await Sandbox.list()) or users(home):
            await anyio.sleep(0.02)
    for handle in await Sandbox.list():
        runs = await handle.runs()
        assert runs and all(run.ended_ns and run.reason for run in runs)
        assert runs[-1].state == handle.status
        disk = home.root / "sandboxes" / handle.name / "upper.ext4"
        assert disk.exists() and (disk.parent / "image.json").exists()
        await handle.remove()
    assert await Sandbox.list() == []
    assert not any((home.root / "sandboxes" / name).exists() for name in NAMES)
    assert not list(home.run.glob("*.sock"))


async def lives(home: Home, count: int, seed: int) -> None:
    chance = random.Random(seed)
    struck = 0
    for number in range(count):
        delay = chance.uniform(0, LONGEST_LIFE)
        match number % 4:
            case 0:
                struck += await struck_within(lambda: vmms(home), delay)
            case 1:
                struck += await struck_within(lambda: sandbox_processes(home), delay)
            case 2:
                struck += await struck_application(home, delay, everybody=False)
            case _:
                struck += await struck_application(home, delay, everybody=True)
        await assert_all_is_well(home)
    assert struck > count / 2  # else the blows fell on nobody
    await lifecycle("one")


async def test_20_lives_are_cut_short(home: Home) -> None:
    await lives(home, 20, seed=5)


@pytest.mark.soak
async def test_200_lives_are_cut_short(home: Home) -> None:
    await lives(home, 200, seed=500)


WORKER = """
    import random, sys, trio
    from trio_sandbox import Sandbox, SandboxAlreadyExistsError, SandboxNotFoundError, SandboxStillRunningError

    async def main():
        chance = random.Random(int(sys.argv[1]))
        made = 0
        for number in range(int(sys.argv[2])):
            name = chance.choice("abcdef")
            try:
                async with await Sandbox.create(name, image="local/base") as sb:
                    made += 1
                    assert (await sb.exec("echo", [sys.argv[1]])).stdout_text == sys.argv[1] + "\\n"
                    assert name in [handle.name for handle in await Sandbox.list()]
                    if chance.random() < 0.5:
                        await sb.stop()
            except SandboxAlreadyExistsError:
                pass
            try:
                await Sandbox.remove(chance.choice("abcdef"))
            except (SandboxNotFoundError, SandboxStillRunningError):
                pass
        print(made)

    trio.run(main)
"""


async def workers(count: int, rounds: int) -> int:
    """Several processes that make, find and remove sandboxes of the same few names; how many they made."""
    made = 0

    async def work(seed: int) -> None:
        nonlocal made
        argv = [sys.executable, "-c", textwrap.dedent(WORKER), str(seed), str(rounds)]
        done = await anyio.run_process(argv, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr.decode()
        made += int(done.stdout)

    async with anyio.create_task_group() as group:
        for seed in range(count):
            group.start_soon(work, seed)
    return made


async def test_several_processes_at_once(home: Home) -> None:
    assert await workers(4, 5) >= 5
    assert await Sandbox.list() == []


@pytest.mark.soak
async def test_eight_processes_at_once(home: Home) -> None:
    assert await workers(8, 60) >= 100
    assert await Sandbox.list() == []
