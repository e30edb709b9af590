"""A machine's life against a scripted guest and a scripted monitor, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.relay.scripted import EXITED, ScriptedGuest, linked, open_session
from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import SandboxDrainingError
from trio_sandbox.life import DRAIN_TIMEOUT, Life
from trio_sandbox.lifecycle import EndReason, Lifecycle, State
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.link import AgentLink, Session
from trio_sandbox.relay.liveness import PING_INTERVAL, PING_TIMEOUT
from trio_sandbox.relay.messages import (
    Clock,
    Exec,
    Started,
    Subscribe,
)
from trio_sandbox.relay.mux import Mux
from trio_sandbox.vm.qmp import QmpError
from trio_sandbox.vm.supervise import Machine

pytestmark = pytest.mark.anyio
REQUEST = Exec((b"prog",), ())


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@attrs.define
class ScriptedMonitor:
    """Carries out `stop` and `cont`, or refuses."""

    said: list[str] = attrs.Factory(list)
    refuses: bool = False

    async def execute(self, command: str) -> None:
        await trio.lowlevel.checkpoint()
        self.said.append(command)
        if self.refuses:
            raise QmpError(command, "no")


@attrs.define(eq=False)
class ScriptedMachine:
    qmp: ScriptedMonitor = attrs.Factory(ScriptedMonitor)
    exited: trio.Event = attrs.Factory(trio.Event)


@attrs.define(eq=False)
class Scene:
    life: Life
    link: AgentLink
    guest: ScriptedGuest
    machine: ScriptedMachine
    began: float
    ended_at: float | None = None

    async def start(self) -> Session:
        """A program that runs."""
        session = open_session(self.link, REQUEST)
        await self.guest.next_message(FrameType.EXEC)
        await self.guest.say(Started(7), session.id)
        return session

    async def finish(self, session: Session) -> None:
        """The program ends."""
        await self.guest.say(EXITED, session.id)

    @property
    def state(self) -> State:
        return self.life.lifecycle.state

    @property
    def elapsed(self) -> float:
        assert self.ended_at is not None
        return self.ended_at - self.began


@asynccontextmanager
async def living(answers: bool = True, **options: Any) -> AsyncIterator[Scene]:
    """A life under way; the block may outlive it. answers: the guest answers pings."""
    config = SandboxConfig.from_options("tester", {"image": "local/base", **options})
    lifecycle, machine = Lifecycle(), ScriptedMachine()
    async with linked() as (link, guest):
        with lifecycle.within(State.CREATING), lifecycle.within(State.RUNNING):
            life = Life(config, lifecycle, cast(Machine, machine), link)
        scene = Scene(life, link, guest, machine, trio.current_time())

        async def live() -> None:
            await life.run()
            scene.ended_at = trio.current_time()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            if answers:
                answer_pings(link, guest.mux)
            await wait_all_tasks_blocked()
            yield scene
            nursery.cancel_scope.cancel()


def answer_pings(link: AgentLink, mux: Mux) -> None:
    """The agent's answers, without its stream: what these tests are about is what else comes."""

    def answered(then: Callable[[], None]) -> bytes:
        link.pongs += 1
        then()
        return b""

    cast(Any, link).send_ping = answered


async def test_pause_stands_still_and_resume_goes_on_with_the_clock_put_right() -> None:
    async with living() as scene:
        await scene.life.pause()
        assert scene.machine.qmp.said == ["stop"]
        await scene.life.pause()  # harmless
        await scene.life.resume()
        assert scene.machine.qmp.said == ["stop", "cont"]
        assert isinstance((await scene.guest.next_message(FrameType.CLOCK)).message, Clock)
        await scene.life.resume()  # harmless
        assert scene.life.lifecycle.history == [State.CREATING, State.RUNNING, State.PAUSED, State.RUNNING]


async def test_a_monitor_that_refuses_leaves_the_machine_running() -> None:
    async with living() as scene:
        scene.machine.qmp.refuses = True
        await scene.life.pause()
        assert scene.state is State.RUNNING
        assert not scene.life.paused


async def test_a_drain_waits_for_what_is_open_and_then_ends() -> None:
    async with living() as scene:
        first, second = await scene.start(), await scene.start()
        scene.life.drain(EndReason.DRAINED)
        await trio.sleep(1000)
        assert scene.ended_at is None
        assert scene.state is State.DRAINING
        await scene.finish(first)
        await trio.sleep(1000)
        assert scene.ended_at is None
        await scene.finish(second)
        await wait_all_tasks_blocked()
        assert scene.life.asked is EndReason.DRAINED
        assert scene.elapsed == pytest.approx(2000)


async def test_a_drain_with_a_deadline_ends_at_it() -> None:
    async with living() as scene:
        await scene.start()
        scene.life.drain(EndReason.DRAINED, 7)
        await trio.sleep(20)
        assert scene.elapsed == pytest.approx(7)


async def test_a_subscription_is_nothing_to_wait_for() -> None:
    async with living() as scene:
        open_session(scene.link, Subscribe())
        scene.life.drain(EndReason.DRAINED)
        await wait_all_tasks_blocked()
        assert scene.life.asked is EndReason.DRAINED


async def test_draining_cannot_be_paused_and_a_paused_one_resumes_to_drain() -> None:
    async with living() as scene:
        session = await scene.start()
        await scene.life.pause()
        scene.life.drain(EndReason.DRAINED)
        await wait_all_tasks_blocked()
        assert scene.machine.qmp.said == ["stop", "cont"]
        assert scene.state is State.DRAINING
        with pytest.raises(SandboxDrainingError):
            await scene.life.pause()
        await scene.finish(session)
        await wait_all_tasks_blocked()
        assert scene.life.asked is EndReason.DRAINED


async def test_a_stop_resumes_a_paused_machine_and_a_kill_does_not() -> None:
    for reason, said in ((EndReason.REQUESTED, ["stop", "cont"]), (EndReason.KILLED, ["stop"])):
        async with living() as scene:
            await scene.life.pause()
            scene.life.end(reason, 10)
            await wait_all_tasks_blocked()
            assert scene.ended_at is not None
            assert scene.machine.qmp.said == said


async def test_idleness_counts_from_the_end_of_the_last_program() -> None:
    async with living(idle_timeout=60) as scene:
        await trio.sleep(50)
        session = await scene.start()
        await trio.sleep(500)
        assert scene.ended_at is None, "a program is open"
        await scene.finish(session)
        await trio.sleep(59)
        assert scene.ended_at is None
        await trio.sleep(2)
        assert scene.elapsed == pytest.approx(50 + 500 + 60)
        assert scene.life.asked is EndReason.IDLE


async def test_a_touch_is_activity_and_a_pause_stops_the_idle_clock() -> None:
    async with living(idle_timeout=60) as scene:
        await trio.sleep(50)
        scene.life.touch()
        await trio.sleep(50)
        await scene.life.pause()
        await trio.sleep(1000)
        await scene.life.resume()
        await trio.sleep(9)
        assert scene.ended_at is None
        await trio.sleep(2)
        assert scene.elapsed == pytest.approx(50 + 60 + 1000)


async def test_max_duration_is_not_stopped_by_a_pause_or_by_an_endless_program() -> None:
    async with living(max_duration=100) as scene:
        await scene.start()
        await scene.life.pause()
        await trio.sleep(1000)
        assert scene.elapsed == pytest.approx(100 + DRAIN_TIMEOUT)
        assert scene.life.asked is EndReason.MAX_DURATION
        assert scene.life.lifecycle.history[-2:] == [State.PAUSED, State.DRAINING]


async def test_max_duration_ends_a_drain_that_had_no_deadline() -> None:
    async with living(max_duration=100) as scene:
        await scene.start()
        scene.life.drain(EndReason.DRAINED)
        await trio.sleep(1000)
        assert scene.elapsed == pytest.approx(100 + DRAIN_TIMEOUT)
        assert scene.life.asked is EndReason.MAX_DURATION


async def test_a_hung_agent_is_lost_but_not_while_the_machine_is_paused() -> None:
    async with living(answers=False) as scene:
        await trio.sleep(PING_INTERVAL / 2)
        await scene.life.pause()
        await trio.sleep(10_000)
        assert scene.ended_at is None
        await scene.life.resume()
        await trio.sleep(PING_INTERVAL + 2 * PING_TIMEOUT + 1)
        assert scene.life.agent_was_lost
        assert scene.ended_at is not None


async def test_a_machine_that_goes_ends_its_life_in_every_state() -> None:
    for state in (State.RUNNING, State.PAUSED, State.DRAINING):
        async with living() as scene:
            await scene.start()
            if state is State.PAUSED:
                await scene.life.pause()
            if state is State.DRAINING:
                scene.life.drain(EndReason.DRAINED)
            await wait_all_tasks_blocked()
            assert scene.state is state
            scene.machine.exited.set()
            await wait_all_tasks_blocked()
            assert scene.ended_at is not None
            assert scene.life.asked is None
