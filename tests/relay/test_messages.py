"""Control messages: exact types, no missing and no extra keys, and one error for every other byte string."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.convert import shortened
from trio_sandbox.errors import RemoteProtocolError
from trio_sandbox.relay.client_messages import (
    Ended,
)
from trio_sandbox.relay.frames import MAX_BODY, FrameType
from trio_sandbox.relay.messages import (
    BODIES,
    Configure,
    Done,
    Exec,
    Exited,
    Hello,
    Ready,
    decode_body_untrusted,
    encode_body,
)

SAMPLES = [
    (FrameType.HELLO, Hello((1, 2), "0.1", "6.1.0")),
    (FrameType.CONFIGURE, Configure(1, 2**62, bytes(64), "h", "0" * 32, "base", "upper")),
    (FrameType.READY, Ready({"mounted": 12})),
    (FrameType.EXEC, Exec((b"a", b"\xff"), (b"A=1",), "/", "u", True, ((7, 1, -1),), 5)),
    (FrameType.EXITED, Exited(-1, 9, False, True, False, 1, 2, 3)),
]


@pytest.mark.parametrize(("kind", "message"), SAMPLES)
def test_round_trip(kind: FrameType, message: Hello) -> None:
    assert decode_body_untrusted(kind, encode_body(message)) == message


@given(st.sampled_from(list(BODIES)), st.binary(max_size=100))
def test_bytes_raise_nothing_but_remote_protocol_error(kind: FrameType, body: bytes) -> None:
    try:
        decode_body_untrusted(kind, body)
    except RemoteProtocolError:
        pass


def test_what_the_guest_leaves_out_is_refused_lest_it_grow_when_it_is_passed_on() -> None:
    assert decode_body_untrusted(FrameType.DONE, encode_body(Done())) == Done()
    with pytest.raises(RemoteProtocolError):
        decode_body_untrusted(FrameType.DONE, msgpack.packb({"message": "x" * 65_500}))


def test_a_console_of_any_bytes_fits_into_a_frame() -> None:
    tail = (b"\xff" * 32_768).decode(errors="replace")
    assert len(encode_body(Ended("crashed", "vmm-exited", 1, tail))) > MAX_BODY
    assert len(encode_body(Ended("crashed", "vmm-exited", 1, shortened(tail)))) < MAX_BODY
    assert shortened("ab") == "ab"


@pytest.mark.parametrize(
    "change",
    [
        {"code": "0"},
        {"code": 0.0},
        {"code": True},
        {"core": 0},
        {"surplus": 1},
        {"code": None},
    ],
)
def test_nothing_is_bent_into_shape(change: dict[str, object]) -> None:
    good = {
        "code": 0,
        "signal": 0,
        "core": False,
        "timed_out": False,
        "held_open": False,
        "utime_us": 0,
        "stime_us": 0,
        "maxrss_kib": 0,
    }
    assert isinstance(decode_body_untrusted(FrameType.EXITED, msgpack.packb(good)), Exited)
    with pytest.raises(RemoteProtocolError):
        decode_body_untrusted(FrameType.EXITED, msgpack.packb({**good, **change}))
    good.pop("code")
    with pytest.raises(RemoteProtocolError):
        decode_body_untrusted(FrameType.EXITED, msgpack.packb(good))
