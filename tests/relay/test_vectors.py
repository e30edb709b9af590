"""The golden frames that every implementation must reproduce: `guest/vectors/frames.json` of the agent stream, which
Python and the C agent share, and `guest/vectors/clients.json` of clients' connections.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import attrs
import pytest

from trio_sandbox.client.deadlines import MAX_MS
from trio_sandbox.client.options import MAX_TIMEOUT_MS
from trio_sandbox.errors import RemoteProtocolError
from trio_sandbox.relay.bridge import MAX_DEADLINE_MS
from trio_sandbox.relay.frames import HEADER, RULES, Frame, FrameReader, FrameType, Role, encode
from trio_sandbox.relay.messages import (
    BODIES,
    EMPTY,
    MAX_PING,
    Deadline,
    Exec,
    decode_body_untrusted,
    encode_body,
)

FOLDER = Path(__file__).parents[2] / "guest" / "vectors"
SENDERS = {"to_host": Role.GUEST, "to_guest": Role.HOST, "to_relay": Role.CLIENT, "to_client": Role.RELAY}
AGENT, CLIENTS = (json.loads((FOLDER / name).read_text())["frames"] for name in ("frames.json", "clients.json"))
VECTORS = AGENT + CLIENTS
TO_PYTHON = [vector for vector in VECTORS if vector["direction"] != "to_guest"]
GOOD = [vector for vector in VECTORS if vector["verdict"] == "ok"]


def read_untrusted(vector: dict[str, Any]) -> list[Frame]:
    """The frames of a vector, their bodies checked as the receiver checks them."""
    sender = SENDERS[vector["direction"]]
    frames = list(FrameReader(sender).feed_untrusted(bytes.fromhex(vector["hex"])))
    for frame in frames:
        if frame.type in BODIES and not frame.flags:
            decode_body_untrusted(frame.type, frame.body)
        elif (frame.type in EMPTY and frame.body) or (frame.type is FrameType.PONG and len(frame.body) > MAX_PING):
            raise RemoteProtocolError("body")
        elif frame.type is FrameType.CREDIT and (len(frame.body) != 4 or not struct.unpack("<I", frame.body)[0]):
            raise RemoteProtocolError("credit")
    return frames


@pytest.mark.parametrize("vector", GOOD, ids=lambda vector: vector["name"])
def test_good_frames_mean_the_same_here(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["hex"])
    sender = SENDERS[vector["direction"]]
    (frame,) = FrameReader(sender).feed_untrusted(raw)
    header = vector["header"]
    assert (len(frame.body), frame.type, frame.flags, frame.slot, frame.session) == (
        header["length"],
        header["type"],
        header["flags"],
        header["slot"],
        header["session"],
    )
    assert frame.type.name == header["type_name"]
    assert encode(frame, sender) == raw
    if "raw" in vector:
        assert frame.body.hex() == vector["raw"]


@pytest.mark.parametrize("vector", [v for v in GOOD if "map" in v], ids=lambda vector: vector["name"])
def test_good_bodies_mean_the_same_here(vector: dict[str, Any]) -> None:
    (frame,) = FrameReader(SENDERS[vector["direction"]]).feed_untrusted(bytes.fromhex(vector["hex"]))
    if vector["direction"] == "to_guest" and not exactly_ours(vector["map"], frame):
        return
    message = decode_body_untrusted(frame.type, frame.body)
    assert decode_body_untrusted(frame.type, encode_body(message)) == message


def exactly_ours(values: dict[str, Any], frame: Frame) -> bool:
    """Whether this host would send the map so: the agent takes unknown and missing keys, and text for bytes."""
    fields = {field.name for field in attrs.fields(BODIES[frame.type])}
    return set(values) == fields and BODIES[frame.type] is not Exec


@pytest.mark.parametrize("vector", [v for v in TO_PYTHON if v["verdict"] == "error"], ids=lambda vector: vector["name"])
def test_bad_frames_to_python_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        read_untrusted(vector)


@pytest.mark.parametrize(
    "vector",
    [v for v in VECTORS if v["direction"] == "to_guest" and v["verdict"] == "error" and v["code"] != "bad_body"],
    ids=lambda vector: vector["name"],
)
def test_bad_headers_to_the_guest_are_refused_by_the_same_code_here(vector: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        list(FrameReader(Role.HOST).feed_untrusted(bytes.fromhex(vector["hex"])))


def test_the_vectors_cover_every_type() -> None:
    for vectors, roles in ((AGENT, {Role.HOST, Role.GUEST}), (CLIENTS, {Role.CLIENT, Role.RELAY})):
        wanted = {kind for kind, rule in RULES.items() if rule.senders & roles}
        found = {vector["header"]["type"] for vector in vectors if vector["verdict"] == "ok"}
        if vectors is CLIENTS:  # what both kinds of stream have is in the other file
            wanted -= {kind for kind in wanted if RULES[kind].senders & {Role.HOST, Role.GUEST}}
            found -= {FrameType.PING, FrameType.PONG}
        assert found == wanted


def test_the_first_deadline_that_the_agent_refuses_is_never_sent() -> None:
    (vector,) = (vector for vector in AGENT if vector["name"] == "deadline: over what nanoseconds can count")
    message = decode_body_untrusted(FrameType.DEADLINE, bytes.fromhex(vector["hex"])[HEADER.size :])
    assert message == Deadline(MAX_DEADLINE_MS + 1)
    assert max(MAX_MS, MAX_TIMEOUT_MS) <= MAX_DEADLINE_MS
