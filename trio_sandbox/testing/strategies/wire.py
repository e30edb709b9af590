"""Frames of docs/wire.md, as values and as bytes: right ones, and what a hostile peer may send: frames with right
headers and wrong everything else, broken frames, mutated streams and noise.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgpack
from hypothesis import strategies as st

from trio_sandbox.relay.frames import HEADER, MAX_SESSION, RULES, Flag, Frame, FrameType, Role, Scope, encode
from trio_sandbox.relay.messages import (
    BODIES,
)


@st.composite
def frames(draw: st.DrawFn, sender: Role, *, max_body: int = 300) -> Frame:
    """A frame whose header is right for `sender`, with a body of any bytes."""
    kind = draw(st.sampled_from([kind for kind, rule in RULES.items() if sender in rule.senders]))
    rule = RULES[kind]
    least, most = {Scope.MACHINE: (0, 0), Scope.SESSION: (1, MAX_SESSION), Scope.EITHER: (0, MAX_SESSION)}[rule.scope]
    flags = draw(st.sampled_from([Flag(0), rule.flags]))
    return Frame(
        kind, draw(st.integers(least, most)), draw(st.binary(max_size=max_body)), flags, draw(st.integers(0, 65_535))
    )


_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from((0, 1, 2, 7, 64, 65, 65_536, 262_144, 262_145, -1, 2**63, 2**64 - 1, -(2**63)))
    | st.text(max_size=6)
    | st.binary(max_size=6)
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


def _plausible(kind: FrameType) -> st.SearchStrategy[bytes]:
    """Maps with the right keys, most values of the right type."""
    by_type: dict[Any, st.SearchStrategy[Any]] = {
        "int": st.sampled_from((0, 1, 7, 100, 262_144, 262_145, 1 << 40, 1 << 52, -1)),
        "str": st.sampled_from(("", "x", "unknown_session", "read")),
        "bytes": st.sampled_from((b"", b"/x")),
        "bool": st.booleans(),
        "tuple[bytes, ...]": st.sampled_from(([b"a"], [])),
        "tuple[int, ...]": st.sampled_from(([1], [])),
    }
    fields = {}
    for field in attrs.fields(BODIES[kind]):
        name = _type_name(field.type)
        fields[field.name] = by_type[name] if name == "int" else by_type.get(name, st.just([])) | st.none()
    return st.fixed_dictionaries(fields).map(msgpack.packb)


def _type_name(kind: Any) -> str:
    """The annotation as it is written, whether or not somebody has resolved it meanwhile."""
    return kind.__name__ if kind in (int, str, bytes, bool) else str(kind)


_PLAUSIBLE = {kind: _plausible(kind) for kind in BODIES}


@st.composite
def hostile_frames(draw: st.DrawFn, sender: Role, sessions: int = 6) -> bytes:
    """A frame that `sender` may send, as far as the header says, with any body."""
    kind = draw(st.sampled_from([kind for kind, rule in RULES.items() if sender in rule.senders]))
    rule = RULES[kind]
    body = st.binary(max_size=80) | st.just(b"") | _VALUES.map(msgpack.packb)
    if kind in BODIES:
        body = _PLAUSIBLE[kind] | body
    elif kind is FrameType.CREDIT:
        body = st.sampled_from((b"\1\0\0\0", b"\0\0\0\0", b"\0\0\4\0", b"\xff\xff\xff\xff")) | body
    elif rule.bulk:
        body = st.sampled_from((b"", b"x", bytes(16_384), bytes(65_536)))
    session = 0 if rule.scope is Scope.MACHINE else draw(st.integers(1, sessions))
    flags = draw(st.sampled_from((Flag(0), rule.flags)))
    return encode(Frame(kind, session, draw(body), flags, draw(st.integers(0, 3))), sender)


@st.composite
def broken_headers(draw: st.DrawFn) -> bytes:
    """A header of any numbers."""
    return HEADER.pack(
        draw(st.sampled_from((0, 1, 65_536, 65_537, 2**32 - 1))),
        draw(st.integers(0, 255)),
        draw(st.integers(0, 255)),
        draw(st.integers(0, 65_535)),
        draw(st.integers(0, 9)),
        draw(st.sampled_from((0, 0, 0, 1))),
    )


def hostile_bytes(sender: Role) -> st.SearchStrategy[bytes]:
    """A few such frames, at times followed by a broken header or noise."""
    whole = st.lists(hostile_frames(sender), min_size=1, max_size=6).map(b"".join)
    return whole | st.builds(bytes.__add__, whole, broken_headers() | st.binary(max_size=40))


@st.composite
def mutated_bytes(draw: st.DrawFn, stream: st.SearchStrategy[bytes]) -> bytes:
    """A stream of bytes with a few bytes changed, removed or put in, or cut short."""
    raw = bytearray(draw(stream))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        match draw(st.sampled_from(("change", "remove", "insert", "cut"))):
            case "change" if raw:
                raw[at] ^= draw(st.integers(1, 255))
            case "remove":
                del raw[at : at + draw(st.integers(1, 20))]
            case "insert":
                raw[at:at] = draw(st.binary(min_size=1, max_size=20))
            case "cut":
                del raw[at:]
    return bytes(raw)
