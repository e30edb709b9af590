"""Frames: whatever bytes arrive, frames or RemoteProtocolError come out, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.errors import LocalProtocolError, RemoteProtocolError
from trio_sandbox.relay.frames import HEADER, MAX_BODY, Frame, FrameReader, FrameType, Role, encode
from trio_sandbox.testing.strategies import frames, mutated_bytes


@given(st.data(), st.sampled_from(Role))
def test_frames_survive_any_cutting(data: st.DataObject, sender: Role) -> None:
    sent = data.draw(st.lists(frames(sender), max_size=5))
    stream = b"".join(encode(frame, sender) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = FrameReader(sender)
    received: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += reader.feed_untrusted(stream[start:end])
    assert received == sent
    assert reader.pending == 0


@given(st.data(), st.sampled_from(Role))
def test_hostile_bytes_raise_nothing_but_remote_protocol_error(choice: st.DataObject, sender: Role) -> None:
    stream = st.lists(frames(sender), max_size=3).map(lambda sent: b"".join(encode(frame, sender) for frame in sent))
    data = choice.draw(st.binary(max_size=200) | mutated_bytes(stream))
    reader = FrameReader(sender)
    try:
        for _ in reader.feed_untrusted(data):
            pass
    except RemoteProtocolError:
        pass
    assert reader.pending <= HEADER.size + MAX_BODY


def header(length: int = 0, kind: int = FrameType.STDOUT, flags: int = 0, session: int = 1, reserved: int = 0) -> bytes:
    return HEADER.pack(length, kind, flags, 0, session, reserved)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (header(length=MAX_BODY + 1), "over 65536"),
        (header(kind=0x7F), "unknown frame type 0x7f"),
        (header(kind=FrameType.STDIN), "not for the guest"),
        (header(flags=4), "flags 0x4"),
        (header(flags=1), "flags 0x1"),
        (header(session=0), "no session"),
        (header(kind=FrameType.PONG, session=3), "where none belongs"),
        (header(reserved=9), "reserved"),
    ],
)
def test_a_bad_header_is_refused_before_its_body_is_waited_for(data: bytes, words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words):
        list(FrameReader(Role.GUEST).feed_untrusted(data))


def test_what_the_peer_would_refuse_is_refused_here() -> None:
    with pytest.raises(LocalProtocolError, match="not for the host"):
        encode(Frame(FrameType.STDOUT, 1), Role.HOST)
    with pytest.raises(LocalProtocolError, match="over 65536"):
        encode(Frame(FrameType.STDIN, 1, bytes(MAX_BODY + 1)), Role.HOST)
