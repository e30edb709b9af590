"""Two muxes with a fake wire between them: what goes in comes out, in order, and nothing but the two errors is ever
raised.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sandbox.errors import LocalProtocolError, RemoteProtocolError
from trio_sandbox.relay.credit import WINDOW
from trio_sandbox.relay.events import JOINED_SIZE, DataReceived, Event, MessageReceived, WindowOpened
from trio_sandbox.relay.frames import HEADER, MAX_BODY, Flag, Frame, FrameType, Role, encode
from trio_sandbox.relay.messages import (
    Exec,
    Exited,
    Failed,
    Hello,
    Ready,
    Shutdown,
    Signal,
    Started,
    StdinClosed,
    encode_body,
)
from trio_sandbox.relay.mux import Mux
from trio_sandbox.relay.states import SideState

EXITED = Exited(0, 0, False, False, False, 1, 2, 3)
REQUEST = Exec((b"true",), ())
HOPS = (Role.HOST, Role.GUEST)


class Pair:
    """A host and a guest in the OPEN state, and the bytes between them."""

    def __init__(self) -> None:
        self.host, self.guest = Mux(Role.HOST), Mux(Role.GUEST)
        self.moved = 0
        self.wires = {Role.HOST: bytearray(), Role.GUEST: bytearray()}
        self.guest.send_message(Hello((1,), "test", "test"))
        self.settle()
        self.host.state = self.guest.state = SideState.CONFIGURING
        self.guest.send_message(Ready({}))
        self.settle()
        assert self.host.state is self.guest.state is SideState.OPEN

    def mux(self, role: Role) -> Mux:
        return self.host if role is Role.HOST else self.guest

    def deliver(self, to: Role, size: int) -> list[Event]:
        wire = self.wires[to.peer]
        wire += self.mux(to.peer).data_to_send()
        piece = bytes(wire[:size])
        del wire[:size]
        self.moved += len(piece)
        return self.mux(to).receive_data_untrusted(piece)

    def settle(self) -> list[Event]:
        events: list[Event] = []
        while True:
            before = self.moved
            events += [*self.deliver(Role.HOST, 1 << 20), *self.deliver(Role.GUEST, 1 << 20)]
            if self.moved == before:
                return events


def started(pair: Pair, session: int = 1) -> Pair:
    pair.host.open_session(session, REQUEST)
    pair.settle()
    pair.guest.send_message(Started(7), session)
    pair.settle()
    return pair


def test_a_session_from_beginning_to_end() -> None:
    pair = started(Pair())
    pair.host.send_data(FrameType.STDIN, 1, b"in", end=True)
    assert pair.settle() == [DataReceived(FrameType.STDIN, 1, b"in", end=True)]
    pair.guest.send_data(FrameType.STDOUT, 1, b"out")
    pair.guest.send_message(EXITED, 1)
    assert pair.settle() == [
        DataReceived(FrameType.STDOUT, 1, b"out"),
        MessageReceived(FrameType.EXITED, 1, 0, EXITED),
    ]
    assert not pair.host.open_sessions and not pair.guest.open_sessions


def test_the_last_frame_of_a_session_comes_after_its_output() -> None:
    pair = started(Pair())
    pair.guest.send_data(FrameType.STDOUT, 1, bytes(3 * MAX_BODY))
    pair.guest.send_message(EXITED, 1)
    kinds = [event.type for event in pair.settle() if not isinstance(event, WindowOpened)]
    assert kinds == [FrameType.STDOUT] * 3 + [FrameType.EXITED]


def test_control_overtakes_bulk_and_bulk_takes_turns() -> None:
    pair = started(started(Pair(), 1), 2)
    for session in (1, 2):
        pair.guest.send_data(FrameType.STDOUT, session, bytes(2 * MAX_BODY))
    pair.guest.send_ping(FrameType.PONG, b"now")
    order = [getattr(event, "session", "pong") for event in pair.settle()]
    assert order == ["pong", 1, 2, 1, 2]


def test_a_large_request_goes_in_parts() -> None:
    pair = Pair()
    request = Exec((b"x" * 200_000,), ())
    pair.host.open_session(1, request)
    assert pair.settle() == [MessageReceived(FrameType.EXEC, 1, 0, request)]
    with pytest.raises(LocalProtocolError, match="over 1048576"):
        pair.host.open_session(2, Exec((b"x" * 2_000_000,), ()))
    assert pair.host.open_sessions == {1}


def test_credit_stops_the_sender_and_returns_with_consumption() -> None:
    pair = started(Pair())
    pair.guest.send_data(FrameType.STDOUT, 1, bytes(WINDOW))
    assert pair.guest.sendable(1) == 0
    with pytest.raises(LocalProtocolError, match="credit for 0"):
        pair.guest.send_data(FrameType.STDOUT, 1, b"x")
    taken = sum(len(event.data) for event in pair.settle() if isinstance(event, DataReceived))
    pair.host.acknowledge(1, taken)
    assert WindowOpened(1, taken) in pair.settle()
    assert pair.guest.sendable(1) == WINDOW


def test_an_overdraft_breaks_the_stream_for_good() -> None:
    pair = started(Pair())
    frame = encode(Frame(FrameType.STDOUT, 1, bytes(MAX_BODY)), Role.GUEST)
    for _ in range(WINDOW // MAX_BODY):
        pair.host.receive_data_untrusted(frame)
    with pytest.raises(RemoteProtocolError, match="credit for 0"):
        pair.host.receive_data_untrusted(frame)
    assert pair.host.state is SideState.ERROR
    with pytest.raises(RemoteProtocolError, match="broken already"):
        pair.host.receive_data_untrusted(b"")


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (Frame(FrameType.STDOUT, 9, b"x"), "not open"),
        (Frame(FrameType.EXITED, 9, encode_body(EXITED)), "not open"),
        (Frame(FrameType.STARTED, 1, encode_body(Started(1))), "which is running"),
        (Frame(FrameType.FAILED, 1, encode_body(Failed("other", 1, "x"))), "which is running"),
        (Frame(FrameType.HELLO, 0, encode_body(Hello((1,), "a", "b"))), "HELLO in state open"),
        (Frame(FrameType.GOODBYE, 0, b"x"), "with a body"),
        (Frame(FrameType.PONG, 0, bytes(65)), "PONG of 65 bytes"),
        (Frame(FrameType.CREDIT, 1, b"\1\0\0"), "CREDIT of 3 bytes"),
        (Frame(FrameType.CREDIT, 1, b"\1\0\0\0"), "where 0 are outstanding"),
        (Frame(FrameType.CREDIT, 1, b"\0\0\0\0"), "credit for 0"),
        (Frame(FrameType.EXITED, 1, b"\xc1"), "EXITED"),
    ],
)
def test_wrong_bytes_of_the_guest(frame: Frame, words: str) -> None:
    pair = started(Pair())
    with pytest.raises(RemoteProtocolError, match=words):
        pair.host.receive_data_untrusted(encode(frame, Role.GUEST))


def test_sessions_before_the_hello_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="greeting"):
        Mux(Role.HOST).receive_data_untrusted(encode(Frame(FrameType.STDOUT, 1, b"x"), Role.GUEST))


def test_an_id_is_never_used_again() -> None:
    pair = started(Pair(), 5)
    pair.guest.send_message(EXITED, 5)
    pair.settle()
    for session in (5, 4, 1):
        with pytest.raises(LocalProtocolError, match="not above 5"):
            pair.host.open_session(session, REQUEST)


def test_late_frames_of_the_host_mean_nothing() -> None:
    pair = started(Pair())
    pair.guest.send_message(EXITED, 1)
    pair.host.send_data(FrameType.STDIN, 1, b"late", end=True)
    pair.host.send_message(Signal(15), 1)
    assert pair.deliver(Role.GUEST, 1 << 20) == []
    assert pair.guest.state is SideState.OPEN


def test_wrong_calls_change_nothing() -> None:
    pair = started(Pair())
    pair.host.send_data(FrameType.STDIN, 1, b"", end=True)
    with pytest.raises(LocalProtocolError, match="after its end"):
        pair.host.send_data(FrameType.STDIN, 1, b"x")
    with pytest.raises(LocalProtocolError, match="not open"):
        pair.host.send_message(Signal(9), 3)
    with pytest.raises(LocalProtocolError):
        pair.host.send_message(Hello((1,), "a", "b"))
    pair.host.send_message(Shutdown(1))
    with pytest.raises(LocalProtocolError, match="closing"):
        pair.host.open_session(2, REQUEST)
    pair.settle()
    assert pair.guest.state is SideState.CLOSING


@given(st.binary(max_size=120), st.integers(0, 3))
@settings(max_examples=200)
def test_garbled_bytes_raise_nothing_but_remote_protocol_error(garbage: bytes, position: int) -> None:
    pair = started(Pair())
    good = encode(Frame(FrameType.STDOUT, 1, b"hello"), Role.GUEST)
    try:
        pair.host.receive_data_untrusted(good[:position] + garbage + good)
    except RemoteProtocolError:
        assert pair.host.state is SideState.ERROR


def test_bulk_without_bytes_says_nothing() -> None:
    """It costs no credit, so a peer could make whoever is slow hold any number of it."""
    pair = started(Pair())
    assert pair.host.receive_data_untrusted(encode(Frame(FrameType.STDOUT, 1), Role.GUEST)) == []
    pair.guest.send_data(FrameType.STDOUT, 1, b"")
    assert not pair.guest.has_to_send


def test_what_comes_once_is_refused_the_second_time() -> None:
    pair = started(Pair())
    closed = encode(Frame(FrameType.STDIN_CLOSED, 1, encode_body(StdinClosed(32))), Role.GUEST)
    pair.host.receive_data_untrusted(closed)
    with pytest.raises(RemoteProtocolError, match="STDIN_CLOSED twice"):
        pair.host.receive_data_untrusted(closed)


def test_one_request_at_a_time_may_come_in_parts() -> None:
    pair = Pair()
    parts = [encode(Frame(FrameType.EXEC, session, b"x", Flag.MORE), Role.HOST) for session in (1, 2)]
    assert pair.guest.receive_data_untrusted(parts[0]) == []
    with pytest.raises(RemoteProtocolError, match="before that of session 1 was whole"):
        pair.guest.receive_data_untrusted(parts[1])


def test_bytes_sent_one_by_one_wait_together() -> None:
    pair = started(Pair())
    for _ in range(2 * JOINED_SIZE):
        pair.guest.send_data(FrameType.STDOUT, 1, b"x")
    frames = pair.guest.frames_to_send(1 << 20)
    assert [len(frame) for frame in frames] == [HEADER.size + JOINED_SIZE] * 2


def test_credit_that_waits_is_one_frame_for_each_session() -> None:
    pair = started(started(Pair(), 1), 2)
    for session in (1, 2):
        pair.guest.send_data(FrameType.STDOUT, session, bytes(1000))
    pair.settle()
    for session in (1, 2) * 100:
        pair.host.acknowledge(session, 5, at_once=True)
    assert pair.host.control_size == 2 * (HEADER.size + 4)
    assert [event for event in pair.settle() if isinstance(event, WindowOpened)] == [
        WindowOpened(1, 500),
        WindowOpened(2, 500),
    ]
    assert pair.host.control_size == 0


def test_credit_of_a_session_that_ended_is_not_sent() -> None:
    pair = started(Pair())
    pair.host.send_data(FrameType.STDIN, 1, b"12345")
    pair.settle()
    pair.guest.acknowledge(1, 5, at_once=True)
    pair.guest.send_message(EXITED, 1)
    assert [event.type for event in pair.settle() if isinstance(event, MessageReceived)] == [FrameType.EXITED]
    assert pair.guest.control_size == 0 and not pair.guest.has_to_send
