"""Any script of calls and deliveries over a pair of muxes, on the agent stream and on a client's connection.

What goes in comes out, in order; what a model of the protocol allows succeeds, and what it does not is refused with
LocalProtocolError and changes nothing; whatever bytes come at the end, only RemoteProtocolError answers them.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule

from trio_sandbox.errors import LocalProtocolError, RemoteProtocolError
from trio_sandbox.relay.client_messages import (
    Attach,
    Detached,
    Join,
    Opened,
    Welcome,
)
from trio_sandbox.relay.credit import WINDOW
from trio_sandbox.relay.events import DataReceived, Event, MessageReceived, Opener
from trio_sandbox.relay.frames import Frame, FrameType, Role, encode
from trio_sandbox.relay.messages import (
    Deadline,
    Done,
    Emit,
    Exec,
    Exited,
    Failed,
    Fs,
    Hello,
    Message,
    Ready,
    Resize,
    Signal,
    Started,
    StdinClosed,
    Subscribe,
)
from trio_sandbox.relay.mux import Mux
from trio_sandbox.relay.states import FINAL, SideState
from trio_sandbox.testing.strategies import hostile_bytes

EXITED = Exited(0, 0, False, False, False, 1, 2, 3)
WELCOME = Welcome(1, "box", 1, 16, 1, {}, "/", "", "/bin/sh")
PATTERN = bytes(index * 7919 >> 5 & 0xFF for index in range(1 << 16)) * 5
SIZES = st.sampled_from((0, 1, 2, 100, 16_384, 65_536, 65_537, 150_000))
WINDOWS = st.sampled_from((1, 2, 3, 100, 16_384, WINDOW))
PARTS = st.sampled_from((0.0, 0.3, 1.0))


def picture(thing: object) -> object:
    """All that an object holds, as values that can be compared."""
    if isinstance(thing, dict):
        return {key: picture(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple, deque)):
        return [picture(item) for item in thing]
    if isinstance(thing, (bytearray, memoryview)):
        return bytes(thing)
    kind: Any = type(thing)
    if attrs.has(kind):
        return [picture(getattr(thing, field.name)) for field in attrs.fields(kind)]
    return (
        picture(vars(thing))
        if type(thing).__module__.startswith("trio_sandbox") and hasattr(thing, "__dict__")
        else thing
    )


@attrs.define(eq=False)
class Model:
    """What one session may do. The phases are "opening", "running", "serving" and "closed", as each end knows them."""

    phases: dict[Role, str]
    far_knows: bool = False
    windows: dict[Role, int] = attrs.Factory(lambda: defaultdict(int))  # by sender
    stdin_ended: bool = False
    stdin_closed: bool = False
    sent: dict[FrameType, bytearray] = attrs.Factory(lambda: defaultdict(bytearray))
    got: dict[FrameType, int] = attrs.Factory(lambda: defaultdict(int))
    unacknowledged: dict[Role, int] = attrs.Factory(lambda: defaultdict(int))  # by receiver
    outstanding: dict[Role, int] = attrs.Factory(lambda: defaultdict(int))  # by sender: sent and not consumed


class MuxMachine(RuleBasedStateMachine):
    """`near` opens sessions, `far` ends them."""

    near_role = Role.HOST
    sessions: Bundle[int] = Bundle("sessions")

    @initialize()
    def begin(self) -> None:
        self.near, self.far = Mux(self.near_role), Mux(self.near_role.peer)
        self.muxes = {mux.role: mux for mux in (self.near, self.far)}
        self.wires = {mux.role: bytearray() for mux in (self.near, self.far)}  # by receiver
        self.models: dict[int, Model] = {}
        self.garbage: dict[Role, bytes] = {}
        if self.near_role is Role.CLIENT:
            self.near.send_message(Join((1,)))
            self.move(self.far.role, 1 << 20)
            self.far.send_message(WELCOME)
        else:
            self.far.send_message(Hello((1,), "a", "b"))
            self.move(self.near_role, 1 << 20)
            self.far.send_message(Ready({}))
        self.move(self.near_role, 1 << 20)
        assert self.near.state is self.far.state is SideState.OPEN

    # -- calls: the model says whether they are allowed

    def call(self, mux: Mux, allowed: bool, function: Callable[..., object], *args: Any, **options: Any) -> bool:
        before = None if allowed else picture(mux)
        try:
            function(*args, **options)
        except LocalProtocolError:
            assert not allowed, "a call that is allowed was refused"
            assert picture(mux) == before, "a refused call changed something"
            return False
        assert allowed, "a call that is not allowed was taken"
        return True

    @rule(
        target=sessions,
        gap=st.integers(1, 3),
        kind=st.sampled_from((Exec, Fs, Emit, Subscribe, Attach)),
        window=WINDOWS,
        stdin_window=WINDOWS,
        large=st.sampled_from((0, 0, 0, 150_000)),
    )
    def open(self, gap: int, kind: type[Opener], window: int, stdin_window: int, large: int) -> MultipleResults[int]:
        number = max(self.models, default=0) + gap
        request = make_request(kind, window, stdin_window, large)
        allowed = kind is not Attach or self.near_role is Role.CLIENT
        if not self.call(self.near, allowed, self.near.open_session, number, request, 3):
            return multiple()
        phase = "opening" if kind in (Exec, Attach) else "serving"
        model = self.models[number] = Model({self.near.role: phase, self.far.role: phase})
        if self.near_role is Role.HOST:
            self.grant(model, getattr(request, "window", 0), getattr(request, "stdin_window", 0))
        return multiple(number)

    def grant(self, model: Model, window: int, stdin_window: int) -> None:
        model.windows.update({self.far.role: window, self.near.role: stdin_window})

    @rule(session=sessions)
    def open_again(self, session: int) -> None:
        self.call(self.near, False, self.near.open_session, session, Exec((b"x",), ()))

    @rule(session=sessions, size=SIZES, end=st.booleans())
    def write(self, session: int, size: int, end: bool) -> None:
        model = self.models.get(session)
        allowed = model is not None and self.near.is_open(session) and not model.stdin_ended
        self.send(self.near, session, FrameType.STDIN, size, allowed, end=end)
        if model is not None and allowed:
            model.stdin_ended |= end and size <= self.last_room

    @rule(session=sessions, size=SIZES, kind=st.sampled_from((FrameType.STDOUT, FrameType.STDERR)))
    def output(self, session: int, size: int, kind: FrameType) -> None:
        phase = self.phase(self.far, session)
        self.send(
            self.far, session, kind, size, phase == "running" or (phase == "serving" and kind is FrameType.STDOUT)
        )

    def send(self, mux: Mux, session: int, kind: FrameType, size: int, allowed: bool, **options: bool) -> None:
        room = self.last_room = mux.sendable(session)
        offset = len(self.models[session].sent[kind]) % 60_000 + session if session in self.models else 0
        data = PATTERN[offset : offset + size]
        if self.call(mux, allowed and size <= room, mux.send_data, kind, session, data, **options):
            self.models[session].sent[kind] += data
            self.models[session].outstanding[mux.role] += size

    @rule(session=sessions, message=st.sampled_from((Signal(9), Resize(1, 2), Deadline(5))))
    def say(self, session: int, message: Message) -> None:
        phase = self.phase(self.near, session)
        allowed = phase in ("opening", "running") or (phase == "serving" and isinstance(message, Deadline))
        self.call(self.near, allowed, self.near.send_message, message, session)

    @rule(session=sessions, kind=st.sampled_from((FrameType.KILL, FrameType.DETACH)))
    def kill(self, session: int, kind: FrameType) -> None:
        phase = self.phase(self.near, session)
        program = phase in ("opening", "running")
        allowed = phase != "closed" if kind is FrameType.KILL else program and self.near_role is Role.CLIENT
        self.call(self.near, allowed, self.near.send_empty, kind, session)

    @rule(session=sessions)
    def start(self, session: int) -> None:
        if self.call(self.far, self.phase(self.far, session) == "opening", self.far.send_message, Started(7), session):
            self.models[session].phases[self.far.role] = "running"

    @rule(session=sessions)
    def close_input(self, session: int) -> None:
        model = self.models.get(session)
        allowed = self.phase(self.far, session) in ("running", "serving") and not (model and model.stdin_closed)
        if self.call(self.far, allowed, self.far.send_message, StdinClosed(32), session):
            self.models[session].stdin_closed = True

    @rule(session=sessions, last=st.sampled_from((EXITED, Failed("other", 1, "x"), Done(), Detached(1))))
    def finish(self, session: int, last: Message) -> None:
        phase = self.phase(self.far, session)
        allowed = {
            Exited: phase == "running",
            Failed: phase in ("opening", "serving"),
            Done: phase == "serving",
            Detached: phase in ("opening", "running") and self.near_role is Role.CLIENT,
        }[type(last)]
        if self.call(self.far, allowed, self.far.send_message, last, session):
            self.models[session].phases[self.far.role] = "closed"

    @rule(session=sessions, near=st.booleans(), part=PARTS, at_once=st.booleans())
    def acknowledge(self, session: int, near: bool, part: float, at_once: bool) -> None:
        mux = self.near if near else self.far
        if (model := self.models.get(session)) is None:
            return
        size = int(model.unacknowledged[mux.role] * part)
        self.call(mux, True, mux.acknowledge, session, size, at_once=at_once)
        model.unacknowledged[mux.role] -= size
        model.outstanding[mux.role.peer] -= size

    @rule(session=sessions, near=st.booleans(), excess=st.sampled_from((1, -1, 1 << 33)))
    def acknowledge_what_never_came(self, session: int, near: bool, excess: int) -> None:
        mux = self.near if near else self.far
        if mux.is_open(session):
            size = self.models[session].unacknowledged[mux.role] + excess if excess > 0 else excess
            self.call(mux, False, mux.acknowledge, session, size)

    @rule(session=sessions)
    def play_the_other_role(self, session: int) -> None:
        near, far = self.near, self.far
        self.call(near, False, near.send_message, EXITED, session)
        self.call(near, False, near.send_message, Done(), session)
        self.call(near, False, near.send_data, FrameType.STDOUT, session, b"x")
        self.call(near, False, near.send_data, FrameType.STDOUT, session, b"")
        self.call(far, False, far.send_data, FrameType.STDIN, session, b"")
        self.call(far, False, far.send_data, FrameType.EXITED, session, b"")
        self.call(far, False, far.send_message, Signal(9), session)
        self.call(far, False, far.send_empty, FrameType.KILL, session)
        self.call(far, False, far.open_session, session + 100, Exec((b"x",), ()))
        for kind in (FrameType.STDIN, FrameType.EXEC, FrameType.CREDIT, FrameType.SIGNAL):
            self.call(near, False, near.send_empty, kind, session)

    # -- the wire

    @rule(near=st.booleans(), size=st.sampled_from((1, 17, 1000, 70_000, 1 << 20)))
    def deliver(self, near: bool, size: int) -> None:
        self.move((self.near if near else self.far).role, size)

    @rule(session=sessions, kind=st.sampled_from((FrameType.STDIN, FrameType.KILL, FrameType.CREDIT, FrameType.EXEC)))
    def come_late(self, session: int, kind: FrameType) -> None:
        """A frame for a session that ended long ago means nothing, and nobody else gets it."""
        if session not in self.models or self.models[session].phases[self.far.role] != "closed":
            return
        if self.wires[self.far.role]:
            self.move(self.far.role, 1 << 24)
        before = picture(self.far)
        assert self.far.receive_data_untrusted(encode(Frame(kind, session, b"\1\0\0\0"), self.near_role)) == []
        assert picture(self.far) == before

    def move(self, to: Role, size: int) -> None:
        wire = self.wires[to]
        wire += self.muxes[to.peer].data_to_send()
        piece = bytes(wire[:size])
        del wire[:size]
        for event in self.muxes[to].receive_data_untrusted(piece):
            self.take(to, event)

    def take(self, role: Role, event: Event) -> None:
        if isinstance(event, DataReceived):
            model = self.models[event.session]
            assert model.phases[role] != "closed", "data of a session that is closed"
            start = model.got[event.type]
            assert model.sent[event.type][start : start + len(event.data)] == event.data
            model.got[event.type] += len(event.data)
            model.unacknowledged[role] += len(event.data)
            assert not event.end or model.stdin_ended
        elif isinstance(event, MessageReceived) and event.session:
            self.take_message(role, event)

    def take_message(self, role: Role, event: MessageReceived) -> None:
        model = self.models[event.session]
        assert model.phases[role] != "closed", "a message of a session that is closed"
        if isinstance(event.message, Opener):
            assert not model.far_knows and role is self.far.role
            model.far_knows = True
            if role is Role.RELAY:
                self.open_it(model, event.session, event.message)
        elif event.type is FrameType.STARTED:
            model.phases[role] = "running"
        elif event.type in FINAL:
            assert role is self.near.role
            model.phases[role] = "closed"
            for kind in (FrameType.STDOUT, FrameType.STDERR):
                assert model.got[kind] == len(model.sent[kind]), "the end overtook output"

    def open_it(self, model: Model, session: int, request: Opener) -> None:
        """The relay grants at most what was asked for; after an ATTACH, part of the input's window is in use."""
        window, stdin_window = (min(getattr(request, name, 0), 20_000) for name in ("window", "stdin_window"))
        credit = stdin_window // 2 if isinstance(request, Attach) else stdin_window
        self.call(self.far, True, self.far.send_message, Opened(session, window, stdin_window, credit), session)
        self.call(self.far, False, self.far.send_message, Opened(session, window, stdin_window, credit), session)
        self.grant(model, window, stdin_window)
        model.unacknowledged[Role.RELAY] = model.outstanding[Role.CLIENT] = stdin_window - credit

    def phase(self, mux: Mux, session: int) -> str:
        model = self.models.get(session)
        if model is None or (mux is self.far and not model.far_knows):
            return "closed"
        return model.phases[mux.role]

    # -- what holds always

    @invariant()
    def windows_hold(self) -> None:
        for session, model in getattr(self, "models", {}).items():
            for role, mux in self.muxes.items():
                assert mux.is_open(session) == (self.phase(mux, session) != "closed")
                assert 0 <= mux.sendable(session) <= model.windows[role]
                assert 0 <= model.outstanding[role] <= model.windows[role]

    @rule(near=st.booleans(), data=st.data())
    def garble(self, near: bool, data: st.DataObject) -> None:
        """Remember bytes that one end is to get at the end of the script, in whatever state it is then."""
        role = (self.near if near else self.far).role
        self.garbage[role] = data.draw(hostile_bytes(role.peer))

    def teardown(self) -> None:
        if not hasattr(self, "models"):
            return
        self.settle()
        for session, model in self.models.items():
            for kind, data in model.sent.items():
                if kind is not FrameType.STDIN or model.phases[self.far.role] != "closed":
                    assert model.got[kind] == len(data)
            for mux in self.muxes.values():
                mux.acknowledge(session, model.unacknowledged[mux.role], at_once=True)
        self.settle()
        for session, model in self.models.items():
            for role, mux in self.muxes.items():
                assert not mux.is_open(session) or mux.sendable(session) == model.windows[role], "credit was lost"
        for role, garbage in self.garbage.items():
            hold(self.muxes[role], garbage)

    def settle(self) -> None:
        while any(self.wires.values()) or self.near.has_to_send or self.far.has_to_send:
            for mux in (self.near, self.far):
                self.move(mux.role, 1 << 24)


def make_request(kind: type[Opener], window: int, stdin_window: int, large: int) -> Opener:
    if kind is Emit:
        return Emit("x", bytes(large))
    if kind is Subscribe:
        return Subscribe("x", True, window)
    if kind is Fs:
        return Fs("write", b"/" + bytes(large), window=window, stdin_window=stdin_window)
    if kind is Attach:
        return Attach(1, window=window, stdin_window=stdin_window)
    return Exec((b"x" * (large or 1),), (), stdin=True, window=window, stdin_window=stdin_window)


def hold(mux: Mux, data: bytes) -> None:
    """Give a mux hostile bytes: events or RemoteProtocolError, and then it is in ERROR for good."""
    try:
        mux.receive_data_untrusted(data)
    except RemoteProtocolError:
        assert mux.state is SideState.ERROR
        with pytest.raises(RemoteProtocolError, match="broken already"):
            mux.receive_data_untrusted(b"")


class ClientMachine(MuxMachine):
    """The same on a client's connection, where the relay grants the windows."""

    near_role = Role.CLIENT


SETTINGS = settings(max_examples=40, stateful_step_count=40, deadline=None, report_multiple_bugs=False)
TestAgentStream = MuxMachine.TestCase
TestAgentStream.settings = SETTINGS
TestClientConnection = ClientMachine.TestCase
TestClientConnection.settings = SETTINGS
