from __future__ import annotations

import itertools
from functools import partial

import pytest
import trio

from tests.cancelling import cancelled_at
from trio_sandbox import ExecFailedError, UnsuccessfulError, race
from trio_sandbox.testing import Program, SimulatedGuest, simulated_sandbox

pytestmark = pytest.mark.anyio


async def test_the_first_success_wins_and_the_losers_are_gone_when_it_returns() -> None:
    guest = SimulatedGuest()
    async with simulated_sandbox(guest=guest) as sandbox:
        began = trio.current_time()
        runs = [partial(sandbox.exec, "sleep", [seconds]) for seconds in ("1000", "5", "7")]
        assert (await race(partial(sandbox.exec, "false"), partial(sandbox.exec, "no-such"), *runs)).exit_code == 0
        assert trio.current_time() == began + 5
        assert not guest.running and not guest.open_sessions


async def test_when_all_have_failed_all_of_it_is_told() -> None:
    async with simulated_sandbox() as sandbox:
        with pytest.RaisesGroup(ExecFailedError, UnsuccessfulError) as caught:
            await race(partial(sandbox.exec, "false"), partial(sandbox.exec, "no-such"))
    output = next(error.output for error in caught.value.exceptions if isinstance(error, UnsuccessfulError))
    assert output.exit_code == 1


async def test_what_a_loser_makes_of_its_end_does_not_matter() -> None:
    async def loses() -> str:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while it is cancelled")

    async def wins() -> str:
        await trio.sleep(1)
        return "won"

    assert await race(loses, wins, loses) == "won"


async def test_two_that_succeed_at_once_are_one_winner() -> None:
    async def wins() -> int:
        return 1

    assert await race(*[wins] * 5) == 1
    with pytest.raises(ValueError, match="at least one"):
        await race()


async def test_a_race_that_is_cancelled_anywhere_leaves_no_program() -> None:
    guest = SimulatedGuest()

    @guest.program("slow")
    async def slow(program: Program) -> None:
        await program.sleep(float(program.argv[1]))

    async with simulated_sandbox(guest=guest) as sandbox:

        async def check() -> None:
            assert not guest.running and not guest.open_sessions

        runs = [partial(sandbox.exec, "slow", [seconds]) for seconds in ("3", "2", "5")]
        for step in itertools.count(1):
            reached = await cancelled_at(step, partial(race, *runs), of_all_tasks=True)
            await check()
            if not reached:
                break
        assert step > 10
