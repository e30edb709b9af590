from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import trio

from tests.cancelling import cancelled_everywhere
from tests.patterns.made import Made
from trio_sandbox import InvalidConfigError, Sandbox, map_sandboxes, map_sandboxes_as_completed

pytestmark = pytest.mark.anyio


async def doubled(sandbox: Sandbox, item: int) -> int:
    assert not await sandbox.fs.exists("/used"), "a fresh one for each item"
    await sandbox.fs.write("/used", b"")
    await sandbox.exec("sleep", [str(10 - item)])
    return item * 2


async def test_results_are_in_the_order_of_the_items_and_so_many_run_at_once() -> None:
    made = Made()
    began = trio.current_time()
    assert await map_sandboxes(doubled, range(6), limit=3, make=made) == [0, 2, 4, 6, 8, 10]
    assert made.most == 3 and len(set(made.names)) == 6
    made.nothing_left()
    assert trio.current_time() - began == 15  # 10+5, 9+6, 8+7
    assert await map_sandboxes(doubled, [], limit=3, make=made) == []
    assert len(made.names) == 6


async def test_as_they_come() -> None:
    made = Made()
    async with map_sandboxes_as_completed(doubled, range(3), limit=3, make=made) as completed:
        assert [pair async for pair in completed] == [(2, 4), (1, 2), (0, 0)]
    made.nothing_left()


async def test_items_are_taken_when_a_sandbox_is_free_for_them() -> None:
    made = Made()
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(100):
            taken += 1
            yield item

    async with map_sandboxes_as_completed(doubled, items(), limit=2, make=made) as completed:
        await anext(aiter(completed))
        assert taken <= 4
    made.nothing_left()
    assert len(made.names) <= 4


async def fails_at_two(sandbox: Sandbox, item: int) -> int:
    if item == 2:
        raise ValueError("two")
    return await doubled(sandbox, item)


async def test_the_first_failure_cancels_the_rest_and_leaves_bare() -> None:
    made = Made()
    began = trio.current_time()
    with pytest.raises(ValueError, match="two"):
        await map_sandboxes(fails_at_two, range(6), limit=2, make=made)
    assert trio.current_time() - began == 9
    assert len(made.names) == 3
    made.nothing_left()


@pytest.mark.parametrize("limit", [1, 2])
async def test_a_sandbox_that_cannot_be_made_and_items_that_fail_are_failures(limit: int) -> None:
    made = Made(failures=[OSError("no room")])
    with pytest.raises(OSError, match="no room"):
        await map_sandboxes(doubled, range(6), limit=limit, make=made)

    def items() -> Iterator[int]:
        yield 1
        raise LookupError

    with pytest.raises(LookupError):
        await map_sandboxes(doubled, items(), limit=limit, make=made)
    made.nothing_left()


async def test_a_failure_of_the_block_is_one_of_them() -> None:
    made = Made()
    with pytest.raises(KeyError):
        async with map_sandboxes_as_completed(doubled, range(6), limit=2, make=made) as completed:
            async for _ in completed:
                raise KeyError
    made.nothing_left()


async def test_wrong_arguments_are_refused_before_anything_is_made() -> None:
    made = Made()
    with pytest.raises(InvalidConfigError) as caught:
        await map_sandboxes(doubled, range(6), limit=0, make=made, memory=256)
    assert len(caught.value.problems) == 2
    with pytest.raises(InvalidConfigError) as caught:
        await map_sandboxes(doubled, range(6), limit=True, memory=-1, colour="red")
    assert len(caught.value.problems) == 4
    assert not made.names


async def test_it_can_be_cancelled_anywhere() -> None:
    made = Made()

    async def check() -> None:
        made.nothing_left()

    operation = partial(map_sandboxes, doubled, range(3), limit=2, make=made)
    assert await cancelled_everywhere(operation, check) > 3
