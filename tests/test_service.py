"""service(): who dies first, and what leaves the block. Virtual time only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_sandbox.service import ServiceEnded, service, wait_any

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


class Boom(Exception):
    pass


class Scene:
    """Two services, a VMM beneath a pump, and a body that says goodbye; `log` is what happened, with the time."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def note(self, text: str) -> None:
        self.log.append(f"{text} @{trio.current_time() - self.began:g}")

    async def serve(
        self,
        name: str,
        boot: float,
        crash_after: float | None,
        return_after: float | None,
        teardown_error: bool,
        *,
        task_status: trio.TaskStatus[str],
    ) -> None:
        try:
            await trio.sleep(boot)
            task_status.started(name)
            if crash_after is not None:
                await trio.sleep(crash_after)
                raise Boom(name)
            await trio.sleep(return_after if return_after is not None else 1e6)
        finally:
            with trio.move_on_after(5, shield=True):
                await trio.sleep(1)
            self.note(f"{name} gone")
            if teardown_error:
                raise Boom(f"{name} teardown")

    @asynccontextmanager
    async def both(self, **faults: Any) -> AsyncIterator[None]:
        self.began = trio.current_time()
        vmm = (faults.get("vmm_crash"), faults.get("vmm_return"), faults.get("vmm_teardown", False))
        pump = (faults.get("pump_crash"), faults.get("pump_return"), faults.get("pump_teardown", False))
        async with service(self.serve, "vmm", 1, *vmm, name="vmm") as value:
            assert value == "vmm"
            async with service(self.serve, "pump", 1, *pump, name="pump"):
                try:
                    yield
                finally:
                    with trio.move_on_after(3, shield=True):
                        await trio.sleep(1)
                    self.note("goodbye")


async def test_normal_end_dies_from_the_inside_out() -> None:
    scene = Scene()
    async with scene.both():
        await trio.sleep(5)
    assert scene.log == ["goodbye @8", "pump gone @9", "vmm gone @10"]


async def test_outside_cancel_dies_in_the_same_order() -> None:
    scene = Scene()
    with trio.move_on_after(10) as scope:
        async with scene.both():
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert scene.log == ["goodbye @11", "pump gone @12", "vmm gone @13"]


@pytest.mark.parametrize(("when", "log"), [(0.5, ["vmm gone @1.5"]), (1.5, ["pump gone @2.5", "vmm gone @3.5"])])
async def test_cancel_while_starting_reaches_the_service(when: float, log: list[str]) -> None:
    scene = Scene()
    with trio.move_on_after(when) as scope:
        async with scene.both():
            raise AssertionError("not reached")
    assert scope.cancelled_caught
    assert scene.log == log


async def test_cancel_in_the_very_step_that_reports_the_start() -> None:
    """Trio ignores the report of a task whose start was cancelled; were it shielded then, it would never end."""
    outer = trio.CancelScope()
    ended = []

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            outer.cancel()
            task_status.started()
            await trio.sleep_forever()
        finally:
            ended.append(True)

    with outer, trio.fail_after(60):
        async with service(serve):
            raise AssertionError("not reached")
    assert outer.cancelled_caught
    assert ended


async def test_cancel_at_every_checkpoint_ends_everything() -> None:
    """Two services and a body, cancelled after each possible number of steps; all of it ends, in order, each time."""
    for steps in range(40):
        scene = Scene()
        with trio.CancelScope() as outer:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def cancel(outer: trio.CancelScope = outer, steps: int = steps) -> None:
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    outer.cancel()

                with trio.fail_after(60):
                    async with scene.both():
                        await trio.sleep_forever()
        assert outer.cancelled_caught
        assert [line.split(" @")[0] for line in scene.log] in (
            [],
            ["vmm gone"],
            ["pump gone", "vmm gone"],
            ["goodbye", "pump gone", "vmm gone"],
        )


async def test_inner_crash_ends_the_body_and_leaves_bare() -> None:
    scene = Scene()
    with pytest.raises(Boom, match="pump"):
        async with scene.both(pump_crash=5):
            await trio.sleep_forever()
    assert scene.log == ["pump gone @8", "goodbye @9", "vmm gone @10"]


async def test_outer_crash_ends_the_body_and_leaves_bare() -> None:
    scene = Scene()
    with pytest.raises(Boom, match="vmm"):
        async with scene.both(vmm_crash=5):
            await trio.sleep_forever()
    assert scene.log == ["vmm gone @7", "goodbye @8", "pump gone @9"]


async def test_a_service_that_returns_ends_the_body() -> None:
    with pytest.raises(ServiceEnded, match="pump"):
        async with Scene().both(pump_return=5):
            await trio.sleep_forever()


async def test_a_lone_body_error_leaves_bare() -> None:
    with pytest.raises(ValueError, match="mine"):
        async with Scene().both():
            raise ValueError("mine")


async def test_body_and_services_failing_leave_as_one_flat_group() -> None:
    with pytest.RaisesGroup(
        pytest.RaisesExc(ValueError, match="mine"),
        pytest.RaisesExc(Boom, match="pump"),
        pytest.RaisesExc(Boom, match="vmm"),
    ):
        async with Scene().both(pump_teardown=True, vmm_teardown=True):
            raise ValueError("mine")


async def test_the_bodys_own_group_is_left_alone() -> None:
    mine = ExceptionGroup("mine", [ValueError()])
    with pytest.raises(ExceptionGroup) as caught:  # noqa: ASYNC401 - its identity is the point
        async with Scene().both():
            raise mine
    assert caught.value is mine


async def test_a_consequence_of_the_services_failure_is_not_told_twice() -> None:
    scene = Scene()
    cause = Boom("original")

    async def fail(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(1)
        raise cause

    with pytest.raises(Boom) as caught:
        async with service(fail):
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("because of it") from cause
    assert caught.value is cause
    assert scene.log == []


async def test_an_error_before_started_is_bare() -> None:
    async def fail(*, task_status: trio.TaskStatus[None]) -> None:
        raise Boom("early")

    with pytest.raises(Boom, match="early"):
        async with service(fail):
            raise AssertionError("not reached")


async def test_teardown_error_after_an_outside_cancel_is_not_lost() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(Boom, match="pump teardown")), trio.move_on_after(10):
        async with Scene().both(pump_teardown=True):
            await trio.sleep_forever()


async def test_wait_any_returns_with_the_first_and_cancels_the_rest() -> None:
    began = trio.current_time()
    ended = []

    async def slow() -> None:
        try:
            await trio.sleep(50)
        finally:
            ended.append("slow")

    await wait_any(partial(trio.sleep, 3), slow)
    assert trio.current_time() - began == 3
    assert ended == ["slow"]
