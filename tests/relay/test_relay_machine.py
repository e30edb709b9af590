"""Any script of clients that join, work, stall, vanish, detach and attach, against the real relay.

Nothing of one session reaches another, nothing is lost or doubled, who has gone has ended what was his, and in the end
every place, every byte of window and every sink has been given back.
"""

from __future__ import annotations

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_sandbox.relay.admission import Admission, Places
from trio_sandbox.relay.budget import CLIENT_SESSIONS, WindowBudget
from trio_sandbox.relay.client_messages import (
    Attach,
    Detached,
)
from trio_sandbox.relay.connection import ClientConnection
from trio_sandbox.relay.events import Opener
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Exec,
    Failed,
    Fs,
    Subscribe,
)
from trio_sandbox.relay.states import SideState
from trio_sandbox.testing.steps import Steps

from .crowd import Client, LocalSession, World, world

PLACES = 4  # one of them is the relay's own
PATIENCE = 60.0
REQUESTS = st.sampled_from(
    (
        Exec((b"prog",), (), stdin=True),
        Exec((b"small",), (), stdin=True, window=100, stdin_window=10),
        Exec((b"mute",), (), stdin=False, window=1),
        Exec((b"detached",), (), stdin=True, detached=True),
        Exec((b"detached",), (), stdin=False, detached=True, window=1000),
        Exec((b"detachable",), (), stdin=True, detachable=True),
        Fs("read", b"/x"),
        Fs("write", b"/x", stdin_window=5000),
        Subscribe("x", True, 4096),
    )
)
FIRST = (Exec((b"prog",), (), stdin=True), Exec((b"detached",), (), stdin=True, detached=True))
SIZES = st.sampled_from((1, 8, 100, 5000, 70_000, 262_144))
NUMBER = st.integers(0, 1 << 16)


@attrs.define(eq=False)
class Guest:
    """A client of the machine: who it is, and what the test knows of it."""

    client: Client
    deadline: float | None = None  # of its wait for a place
    state: str = "in"  # "waiting", "in", "gone"
    connection: ClientConnection | None = None


class RelayMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.time = 0.0
        self.clients: list[Guest] = []
        self.waiting: list[Guest] = []
        self.steps = Steps(lambda: world(Admission(clients=Places("clients", PLACES))))
        self.world = self.get()
        for number in range(2):  # a world in which the rules find somebody
            self.join(wait=False)
            for request in FIRST:
                self.open(number, request)

    def get(self) -> World:
        async def itself(world: World) -> World:
            return world

        return self.steps(itself)

    def members(self) -> list[Guest]:
        return [guest for guest in self.clients if guest.state == "in"]

    def pick(self, number: int) -> Guest | None:
        members = self.members()
        return members[number % len(members)] if members else None

    # -- coming and going

    @rule(wait=st.booleans())
    def join(self, wait: bool) -> None:
        full = len(self.members()) == PLACES - 1
        guest = Guest(self.steps(self._connect))
        self.clients.append(guest)
        self.steps(lambda _: guest.client.join(int(PATIENCE * 1000) if wait else 0))
        if full and not wait:
            assert guest.client.busy is not None and guest.client.busy.used == PLACES
            assert guest.client.closed.is_set()
            guest.state = "gone"
        elif full:
            assert guest.client.welcome is None and guest.client.busy is None
            guest.state, guest.deadline = "waiting", self.time + PATIENCE
            self.waiting.append(guest)
        else:
            self.welcomed(guest)

    async def _connect(self, world: World) -> Client:
        return world.connect()

    def welcomed(self, guest: Guest) -> None:
        assert guest.client.welcome is not None, "a place was free and the client did not get it"
        guest.state = "in"
        guest.connection = self.world.connection(guest.client)

    @rule(number=NUMBER, abruptly=st.booleans())
    def vanish(self, number: int, abruptly: bool) -> None:
        if (guest := self.pick(number)) is None:
            return
        if abruptly:
            self.steps(lambda _: guest.client.hang_up())
        else:
            self.steps(lambda _: guest.client.stream.send_all(b"\xff" * 16))
        self.resume_one(guest)  # its last words are for whoever reads
        self.left(guest)

    def left(self, guest: Guest) -> None:
        if guest.client.reading.is_set() is False:
            self.resume_one(guest)
        self.steps.pass_time(1.5)  # last words
        self.time += 1.5
        guest.state = "gone"
        self.expire()
        if self.waiting:
            first = self.waiting.pop(0)
            self.welcomed(first)

    @rule(number=NUMBER)
    @precondition(lambda self: self.waiting)
    def give_up(self, number: int) -> None:
        guest = self.waiting.pop(number % len(self.waiting))
        self.steps(lambda _: guest.client.hang_up())
        guest.state = "gone"

    @rule(seconds=st.sampled_from((1.0, 20.0, 61.0)))
    def pass_time(self, seconds: float) -> None:
        self.steps.pass_time(seconds)
        self.time += seconds
        self.expire()

    def expire(self) -> None:
        for guest in list(self.waiting):
            if guest.deadline is not None and guest.deadline <= self.time:
                self.waiting.remove(guest)
                assert guest.client.busy is not None, "a wait outlasted its deadline"
                guest.state = "gone"

    # -- sessions

    @rule(number=NUMBER, request=REQUESTS)
    def open(self, number: int, request: Opener) -> None:
        if (guest := self.pick(number)) is not None:
            self.do(guest, lambda client: client.open(request))

    def do(self, guest: Guest, act: object) -> None:
        async def step(_: World) -> None:
            act(guest.client)  # type: ignore[operator]
            await guest.client.flush()

        self.steps(step)

    def pick_session(self, number: int, other: int) -> tuple[Guest, int, LocalSession] | None:
        """A session that has been opened, as far as its client knows."""
        if (guest := self.pick(number)) is None:
            return None
        ids = [local for local in guest.client.open_now() if guest.client.sessions[local].number]
        if not ids:
            return None
        local = ids[other % len(ids)]
        return guest, local, guest.client.sessions[local]

    @rule(number=NUMBER, other=NUMBER, size=SIZES, end=st.booleans())
    def write(self, number: int, other: int, size: int, end: bool) -> None:
        if (found := self.pick_session(number, other)) is None or found[2].stdin_ended:
            return
        guest, local, session = found
        size = min(size, guest.client.mux.sendable(local))
        data = bytes((session.number + position) & 0xFF for position in range(session.fed, session.fed + size))
        session.fed += size
        session.stdin_ended |= end
        self.do(guest, lambda client: client.mux.send_data(FrameType.STDIN, local, data, end=end))

    @rule(number=NUMBER, other=NUMBER, kind=st.sampled_from((FrameType.KILL, FrameType.DETACH)))
    def kill(self, number: int, other: int, kind: FrameType) -> None:
        if (found := self.pick_session(number, other)) is None:
            return
        guest, local, session = found
        survives = isinstance(session.request, Attach) or (
            isinstance(session.request, Exec) and (session.request.detached or session.request.detachable)
        )
        if kind is FrameType.DETACH and not survives:
            return
        session.killed |= kind is FrameType.KILL
        self.do(guest, lambda client: client.mux.send_empty(kind, local))

    @rule(number=NUMBER, other=NUMBER, replay=st.booleans(), size=st.sampled_from((0, 40)))
    def attach(self, number: int, other: int, replay: bool, size: int) -> None:
        guest, sessions = self.pick(number), self.world.agent.sessions
        if guest is None or not sessions:
            return
        free = [info.id for info in self.world.relay.survivors.infos if not info.attached]
        targets = free or sorted(sessions)  # those that are taken or were nobody's are refused
        target = targets[other % len(targets)]
        start = self.world.replay_start(target, replay=replay)
        self.do(guest, lambda client: client.open(Attach(target, replay, size, size), start))

    @rule(number=NUMBER, other=NUMBER, size=SIZES, end=st.booleans())
    def hand_over(self, number: int, other: int, size: int, end: bool) -> None:
        """One client leaves a session, its program goes on or ends, and the next client takes it."""
        self.kill(number, other, FrameType.DETACH)
        self.output(other, size)
        if end:
            self.finish(other, size)
        self.attach(other, number, True, 24)

    # -- the guest

    @rule(number=NUMBER, size=SIZES)
    def output(self, number: int, size: int) -> None:
        async def step(world: World) -> None:
            if alive := [key for key, session in world.agent.sessions.items() if not session.over]:
                world.agent.output(alive[number % len(alive)], size)
                await self.say(world)

        self.steps(step)

    async def say(self, world: World) -> None:
        """The agent's own words: what it says while it does not read is said too."""
        await world.agent.flush()

    @rule(number=NUMBER, size=SIZES)
    def finish(self, number: int, size: int) -> None:
        async def step(world: World) -> None:
            if alive := [key for key, session in world.agent.sessions.items() if not session.over]:
                world.agent.output(alive[number % len(alive)], size)
                world.agent.end(alive[number % len(alive)])
                await self.say(world)

        self.steps(step)

    @rule(number=NUMBER)
    def credit(self, number: int) -> None:
        async def step(world: World) -> None:
            if alive := [key for key, session in world.agent.sessions.items() if not session.over]:
                world.agent.credit(alive[number % len(alive)])
                await self.say(world)

        self.steps(step)

    @rule()
    def stall_agent(self) -> None:
        self.world.agent.stop_reading()

    @rule()
    def resume_agent(self) -> None:
        async def step(world: World) -> None:
            world.agent.reading.set()

        self.steps(step)

    # -- readers that stop

    @rule(number=NUMBER)
    def stall(self, number: int) -> None:
        if (guest := self.pick(number)) is not None:
            guest.client.stop_reading()

    @rule(number=NUMBER)
    def resume(self, number: int) -> None:
        if (guest := self.pick(number)) is not None:
            self.resume_one(guest)

    def resume_one(self, guest: Guest) -> None:
        async def step(_: World) -> None:
            guest.client.reading.set()

        self.steps(step)

    # -- what holds always

    @invariant()
    def places_are_counted(self) -> None:
        if not hasattr(self, "world"):
            return
        relay = self.world.relay
        assert relay.admission.clients.used == 1 + len(self.members())
        assert self.world.link.mux.state is SideState.OPEN
        for guest in self.clients:
            if guest.connection is not None and guest.connection._channel is not None:
                budget = guest.connection._channel.budget
                assert 0 <= budget.sessions <= CLIENT_SESSIONS and budget.shared >= 0

    def teardown(self) -> None:
        if not hasattr(self, "steps"):
            return
        try:
            if not self.steps.has_failed:
                self.come_to_rest()
        finally:
            self.steps.close()

    def come_to_rest(self) -> None:
        self.resume_agent()
        for guest in self.members():
            self.resume_one(guest)
        self.check_delivered()
        self.check_credit()
        for guest in self.waiting:
            guest.state = "gone"
            self.steps(lambda _, guest=guest: guest.client.hang_up())  # type: ignore[misc]
        self.waiting.clear()
        for guest in self.members():
            self.steps(lambda _, guest=guest: guest.client.hang_up())  # type: ignore[misc]
        self.check_ended()
        self.check_given_back()

    def check_delivered(self) -> None:
        """Everyone reads: every session has all of its output, and its input has come through."""
        agent = self.world.agent
        for guest in self.members():
            for session in guest.client.sessions.values():
                if isinstance(session.end, (Failed, Detached)) or not session.number:
                    continue
                assert session.start + session.got == agent.sessions[session.number].produced
                assert (session.end is not None) == agent.sessions[session.number].over
                if not isinstance(session.request, Attach):
                    expected = bytes((session.number + position) & 0xFF for position in range(session.fed))
                    assert agent.sessions[session.number].stdin[: session.fed] == expected or session.end is not None
                assert not session.killed or agent.sessions[session.number].over

    def check_credit(self) -> None:
        """Everything was consumed, so all windows are whole again."""

        async def credit_all(world: World) -> None:
            for number, session in world.agent.sessions.items():
                if not session.over:
                    world.agent.credit(number)
            await world.agent.flush()

        self.steps(credit_all)
        for guest in self.members():
            for local in guest.client.open_now():
                window = guest.client.mux._sessions[local].sending
                assert window.credit == window.limit, "credit of the input was lost"
        for number in self.world.agent.mux.open_sessions:
            output = self.world.agent.mux._sessions[number].sending
            to_come = self.world.link.mux._sessions[number].receiving.consumed  # until it makes a lot
            assert output.credit + to_come == output.limit, "credit of the output was lost"

    def check_ended(self) -> None:
        """All clients have gone: only survivors live."""
        left = {info.id for info in self.world.relay.survivors.infos}
        for number, session in self.world.agent.sessions.items():
            survives = isinstance(session.request, Exec) and (session.request.detached or number in left)
            assert session.over or survives, f"session {number} outlived its client"
            if isinstance(session.request, Exec) and session.request.detached and not session.over:
                assert number in left, "a survivor was forgotten"

    def check_given_back(self) -> None:
        relay, link = self.world.relay, self.world.link

        async def end_all(world: World) -> None:
            for number, session in world.agent.sessions.items():
                if not session.over:
                    world.agent.end(number)
            await world.agent.flush()

        self.steps(end_all)
        assert relay.admission.clients.used == 1
        assert not relay._connections
        assert not link._sinks and not link._pings
        assert not link.mux.open_sessions
        whole = WindowBudget()
        channels = [guest.connection._channel for guest in self.clients if guest.connection is not None]
        for budget in [
            relay.survivors.channel.budget,
            *(channel.budget for channel in channels if channel is not None),
        ]:
            assert (budget.sessions, budget.shared) == (0, whole.shared)


TestRelay = RelayMachine.TestCase
TestRelay.settings = settings(max_examples=120, stateful_step_count=40, deadline=None, report_multiple_bugs=False)
