"""No bytes from the host may crash the agent: each stream ends in answers, and in an orderly end of the agent."""

from __future__ import annotations

import json
import socket
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.guest.agent_client import CONFIGURE, HEADER, NAMES, TEMPLATE, TYPES, Client, encode, exec_map
from tests.guest.conftest import GUEST, Launch

VECTORS: list[dict[str, Any]] = json.loads((GUEST / "vectors" / "frames.json").read_text())["frames"]
FRAMES = [bytes.fromhex(vector["hex"]) for vector in VECTORS if vector["direction"] == "to_guest"]
FRAMES += [encode("EXEC", exec_map(["true"], stdin=True), session) for session in (1, 2, 3)]
FRAMES = [frame for frame in FRAMES if TYPES.get(frame[4]) not in ("SHUTDOWN", "CONFIGURE")]

CONTAINERS = st.sampled_from(
    ["EXEC", "SIGNAL", "CLOCK", "STDIN", "CREDIT", "RESIZE", "DEADLINE", "FS", "EMIT", "SUBSCRIBE"]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Some good frame with a few bytes changed, its length kept true or not."""
    frame = bytearray(draw(st.sampled_from(FRAMES)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(frame) - 1))
        frame[at] = draw(st.integers(0, 255))
    if draw(st.booleans()):  # past the checks of the header, into those of the body
        body = bytes(frame[HEADER.size :])
        session = 0 if TYPES.get(frame[4]) in ("PING", "CLOCK", "CLIENT_GONE", "IDENTIFY") else draw(st.integers(1, 4))
        kind = frame[4] if frame[4] in NAMES.values() else NAMES["EXEC"]
        frame = bytearray(HEADER.pack(len(body), kind, 0, 0, session, 0) + body)
    return bytes(frame)


garbage = st.builds(
    lambda name, body, session: encode(name, body, session if name != "CLOCK" else 0),
    CONTAINERS,
    st.binary(max_size=200),
    st.integers(1, 4),
)
streams = st.lists(st.one_of(mutated(), garbage), min_size=1, max_size=12).map(b"".join)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)
@given(stream=streams, cut=st.integers(1, 400), template=st.booleans())
def test_mutated_streams(launch: Launch, stream: bytes, cut: int, template: bool) -> None:
    # `launch` checks that the agent ended by itself, with status 0 and no word of a sanitizer.
    with launch() as agent:
        agent.configure(TEMPLATE if template else CONFIGURE)
        try:
            for at in range(0, len(stream), cut):
                agent.send_raw(stream[at : at + cut])
            agent.socket.shutdown(socket.SHUT_WR)  # what follows might be taken for the body of a frame cut short
        except (BrokenPipeError, ConnectionResetError):
            return  # it has said ERROR and gone


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(body=st.binary(max_size=300), change=st.integers(0, 200), value=st.integers(0, 255))
def test_mutated_configure(launch: Launch, body: bytes, change: int, value: int) -> None:
    good = bytearray(encode("CONFIGURE", TEMPLATE)[HEADER.size :])
    good[change % len(good)] = value
    for raw in (body, bytes(good)):
        with launch(may_fail=True) as agent:
            agent.expect("HELLO")
            agent.send("CONFIGURE", raw)
            assert agent.receive().name in ("READY", "BOOT_FAILED")


def test_garbage_is_answered(agent: Client) -> None:
    agent.send_raw(b"\xff" * 16)
    assert agent.expect("ERROR").body["code"] == "bad_length"
