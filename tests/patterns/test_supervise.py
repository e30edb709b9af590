from __future__ import annotations

import itertools
from functools import partial

import pytest
import trio

from tests.cancelling import cancelled_everywhere
from tests.patterns.made import Made
from trio_sandbox import (
    InvalidConfigError,
    Restart,
    Restarting,
    RestartLimitError,
    RestartPolicy,
    Sandbox,
    SandboxAlreadyExistsError,
    SandboxCrashedError,
    SandboxDrainingError,
    supervise,
)

pytestmark = pytest.mark.anyio
STEADY = RestartPolicy(delay=10, factor=2, jitter=0, max_restarts=3, window=1000)


@pytest.fixture
def made() -> Made:
    return Made()


async def test_an_end_that_was_meant_is_the_end(made: Made) -> None:
    async def run(sandbox: Sandbox) -> str:
        return (await sandbox.exec("echo", ["done"])).stdout_text

    end = await supervise(run, make=made, policy=STEADY)
    assert (end.result, end.restarts, made.names) == ("done\n", 0, ["supervised"])
    made.nothing_left()


async def test_a_failure_brings_a_fresh_sandbox_each_time_later(made: Made) -> None:
    starts: list[float] = []
    told: list[Restarting] = []

    async def run(sandbox: Sandbox) -> int:
        assert not await sandbox.fs.exists("/used")
        await sandbox.fs.write("/used", b"")
        starts.append(trio.current_time())
        if len(starts) < 4:
            raise ValueError(f"life {len(starts)}")
        return len(starts)

    end = await supervise(run, make=made, policy=STEADY, name="worker", on_restart=told.append)
    assert (end.result, end.restarts, made.names) == (4, 3, ["worker"] * 4)
    assert [round(after - before) for before, after in itertools.pairwise(starts)] == [10, 20, 30]
    assert [(one.number, str(one.failure), one.delay) for one in told] == [
        (1, "life 1", 10),
        (2, "life 2", 20),
        (3, "life 3", 30),
    ]


async def test_too_many_failures_are_told_with_the_last(made: Made) -> None:
    async def run(sandbox: Sandbox) -> None:
        raise ValueError(f"life {len(made.names)}")

    with pytest.raises(
        RestartLimitError, match="gave up sandbox 'supervised', after 3 restarts within 1000 s"
    ) as caught:
        await supervise(run, make=made, policy=STEADY)
    assert str(caught.value.__cause__) == "life 4"
    made.nothing_left()


async def test_always_and_never(made: Made) -> None:
    async def run(sandbox: Sandbox) -> None:
        if len(made.names) > 2:
            raise KeyError

    always, never = (RestartPolicy(restart=restart, max_restarts=4, jitter=0) for restart in ("always", Restart.NEVER))
    with pytest.raises(RestartLimitError):
        await supervise(run, make=made, policy=always)
    assert len(made.names) == 5
    with pytest.raises(KeyError):
        await supervise(run, make=made, policy=never)
    assert len(made.names) == 6


async def test_a_crash_is_a_failure_also_of_work_that_does_not_notice(made: Made) -> None:
    async def run(sandbox: Sandbox) -> str:
        if len(made.names) == 1:
            made.guests[-1].panic("out of paper")
            await trio.sleep_forever()
        if len(made.names) == 2:
            made.guests[-1].panic("out of ink")
            await sandbox.exec("sleep", ["1000"])
        return "done"

    told: list[Restarting] = []
    end = await supervise(run, make=made, policy=STEADY, on_restart=told.append)
    assert (end.result, end.restarts) == ("done", 2)
    assert all(isinstance(one.failure, SandboxCrashedError) for one in told)


@pytest.mark.parametrize("notices", [False, True])
@pytest.mark.parametrize("how", ["stop", "drain", "kill"])
async def test_a_sandbox_that_was_ended_on_purpose_is_not_made_again(made: Made, how: str, notices: bool) -> None:
    async def run(sandbox: Sandbox) -> None:
        await getattr(sandbox, how)()
        if not notices:
            await trio.sleep_forever()
        while True:
            await sandbox.exec("sleep", ["1"])

    with trio.fail_after(100):
        end = await supervise(run, make=made, policy=STEADY)
    assert (end.result, len(made.names)) == (None, 1)


async def test_what_no_restart_would_mend_is_raised_at_once(made: Made) -> None:
    async def run(sandbox: Sandbox) -> None:
        pass

    made.failures = [OSError("for a moment"), SandboxAlreadyExistsError("worker")]
    with pytest.raises(SandboxAlreadyExistsError):
        await supervise(run, make=made, policy=STEADY)
    assert len(made.names) == 2
    with pytest.raises(InvalidConfigError) as caught:
        await supervise(run, drain_timeout=-1, memory=-1, name="/")
    assert len(caught.value.problems) == 4, caught.value.problems  # no image either


async def test_cancelled_it_drains_first(made: Made) -> None:
    ends: list[str] = []

    async def run(sandbox: Sandbox) -> None:
        async with await sandbox.exec_stream("sleep", ["10"]) as program:
            await trio.sleep(5)
            with pytest.raises(SandboxDrainingError):
                await sandbox.exec("true")
            assert await program.wait() == (0, True)
            ends.append("its program has ended by itself")

    began = trio.current_time()
    with trio.move_on_after(3) as scope:
        await supervise(run, make=made, policy=STEADY, drain_timeout=60)
    assert scope.cancelled_caught
    assert ends == ["its program has ended by itself"]
    assert 10 <= trio.current_time() - began < 12
    made.nothing_left()


@pytest.mark.parametrize("sleeps", ["in the guest", "here"])
async def test_a_drain_has_its_bound(made: Made, sleeps: str) -> None:
    async def run(sandbox: Sandbox) -> None:
        if sleeps == "in the guest":
            await sandbox.exec("sleep", ["1000"])
        await trio.sleep_forever()

    began = trio.current_time()
    with trio.move_on_after(3):
        await supervise(run, make=made, policy=STEADY, drain_timeout=60)
    assert trio.current_time() - began < (65 if sleeps == "in the guest" else 5)
    made.nothing_left()


@pytest.mark.parametrize("drain_timeout", [0.0, 5.0])
async def test_cancelled_anywhere_it_leaves_nothing(made: Made, drain_timeout: float) -> None:
    async def run(sandbox: Sandbox) -> None:
        await sandbox.exec("sleep", ["1"])
        if len(made.names) % 2:
            raise ValueError

    async def check() -> None:
        made.nothing_left()

    operation = partial(supervise, run, make=made, policy=STEADY, drain_timeout=drain_timeout)
    assert await cancelled_everywhere(operation, check) > 3
