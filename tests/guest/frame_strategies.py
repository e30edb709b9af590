"""Whole scripts of a host, for the fuzzer of the agent: frames of every type, right ones, wrong ones, and noise.

A script knows no session ids, since these only grow in the life of an agent: a step says which of the sessions before
it it speaks of, and `Script.render` fills in the number. Most of what is drawn is one choice from a pool, because
drawing is what costs time; what makes a body wrong is drawn in detail.
"""

from __future__ import annotations

import random
from typing import Any

import attrs
from hypothesis import strategies as st

from tests.guest.agent_client import BODY_MAX, END, HEADER, MORE, NAMES
from tests.guest.fuzz_bodies import right_bodies, wrong_bodies


@attrs.frozen
class Step:
    """One frame. `back` tells its session, from the newest one: 0 is that one, 1 the one before it, -1 the next."""

    name: str
    body: bytes = attrs.field(repr=lambda body: repr(body[:200]))
    flags: int = 0
    back: int = 0
    slot: int = 0
    """Of a session's opener: its slot. Of other frames: 1 says that the slot is not the session's."""


OPENERS = ("EXEC", "FS", "EMIT", "SUBSCRIBE")
OF_SESSIONS = ("STDIN", "SIGNAL", "KILL", "CREDIT", "RESIZE", "DEADLINE")
OF_THE_MACHINE = ("PING", "CLOCK", "CLIENT_GONE", "IDENTIFY", "CONFIGURE")
# How often each comes.
FREQUENCIES = {
    "PING": 10, "EXEC": 7, "STDIN": 16, "CREDIT": 12, "KILL": 6, "SIGNAL": 9, "DEADLINE": 6, "RESIZE": 8, "FS": 8,
    "EMIT": 6, "SUBSCRIBE": 4, "CLOCK": 5, "CLIENT_GONE": 2, "IDENTIFY": 2, "CONFIGURE": 2,
}  # fmt: skip
BOOT_FREQUENCIES = {
    "CONFIGURE": 3,
    "IDENTIFY": 3,
    **dict.fromkeys(("PING", "EXEC", "FS", "SHUTDOWN", "KILL", "EMIT"), 1),
}
_BACK: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(OPENERS, (-1,) * 12 + (0, 1, -3)),
    **dict.fromkeys(OF_SESSIONS, (0,) * 9 + (1, 1, 2, 2, 3, 4, -1)),
}
_FLAGS = {"EXEC": (0,) * 7 + (MORE,), "FS": (0,) * 7 + (MORE,), "EMIT": (0,) * 7 + (MORE,), "STDIN": (0, 0, 0, END)}
_SLOTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys((*OPENERS, "CLIENT_GONE"), (0, 0, 0, 1, 2, 65_535)),
    **dict.fromkeys(OF_SESSIONS, (0,) * 15 + (1,)),
}
_WRONG_IN_100 = {"STDIN": 2, "CREDIT": 5, "KILL": 15, "CLIENT_GONE": 15, "PING": 5}
_RIGHT, _WRONG = (
    {name: bodies(name) for name in (*FREQUENCIES, "SHUTDOWN")} for bodies in (right_bodies, wrong_bodies)
)


def _heads(frequencies: dict[str, int]) -> st.SearchStrategy[tuple[Step, bool]]:
    """Steps without a body, and whether that is to be right: one choice of two thousand, the simple ones first."""
    draw = random.Random(0)
    heads = [
        (
            Step(name, b"", *(draw.choice(pool.get(name, (0,))) for pool in (_FLAGS, _BACK, _SLOTS))),
            draw.randrange(100) >= _WRONG_IN_100.get(name, 30),
        )
        for name in draw.choices(list(frequencies), list(frequencies.values()), k=2000)
    ]

    def complexity(head: tuple[Step, bool]) -> tuple[bool, bool, int, int]:
        step, right = head
        return not right, bool(step.flags), abs(step.back), step.slot

    return st.sampled_from(sorted(heads, key=complexity))


@st.composite
def _steps(draw: st.DrawFn, heads: st.SearchStrategy[tuple[Step, bool]]) -> list[Step]:
    """One frame, or a message in several."""
    head, right = draw(heads)
    body = draw((_RIGHT if right else _WRONG)[head.name])
    in_parts = head.flags & MORE or (len(body) > BODY_MAX and head.name in _FLAGS)
    if not in_parts or head.name == "STDIN":
        return [attrs.evolve(head, body=body[:BODY_MAX])]
    size = draw(st.sampled_from((1, 2, 10, BODY_MAX))) if len(body) <= BODY_MAX else BODY_MAX
    count = draw(st.integers(1, 4))  # of parts; what is left of the message is the last of them, or never comes
    parts = [body[at * size : (at + 1) * size] for at in range(count)]
    if draw(st.sampled_from((True, True, False))):
        parts.append(body[count * size :][:BODY_MAX])
    return [
        Step(head.name, part, 0 if number == count else MORE, head.back if number == 0 else 0, head.slot)
        for number, part in enumerate(parts)
    ]


STEPS = _steps(_heads(FREQUENCIES))
BOOT_STEPS = _steps(_heads(BOOT_FREQUENCIES))


BAD_HEADERS = (
    b"\xff" * 16,
    HEADER.pack(65_537, NAMES["PING"], 0, 0, 0, 0),
    HEADER.pack(0, NAMES["PING"], 0, 0, 0, 1),
    HEADER.pack(0, 0, 0, 0, 0, 0),
    HEADER.pack(0, 0x21, 0, 0, 0, 0),
    HEADER.pack(0, 0x21, 0, 3, 9, 0),
    HEADER.pack(0, NAMES["EXITED"], 0, 0, 1, 0),
    HEADER.pack(4, NAMES["PONG"], 0, 0, 0, 0) + b"pong",
    HEADER.pack(0, NAMES["PING"], END, 0, 0, 0),
    HEADER.pack(0, NAMES["STDIN"], MORE, 0, 1, 0),
    HEADER.pack(0, NAMES["EXEC"], 0x80 | MORE, 2, 1, 0),
    HEADER.pack(0, NAMES["KILL"], 0, 0, 0, 0),
    HEADER.pack(0, NAMES["SHUTDOWN"], 0, 0, 1, 0),
    HEADER.pack(0, NAMES["SUBSCRIBE"], MORE, 0, 1, 0),
)
HEADERS = st.builds(
    HEADER.pack,
    st.sampled_from((0, 1, 65_536, 65_537, 2**32 - 1)), st.integers(0, 255), st.sampled_from((0, 0, 1, 2, 255)),
    st.integers(0, 65_535), st.sampled_from((0, 1, 9, 2**32 - 1)), st.sampled_from((0, 0, 0, 1, 2**31)),
)  # fmt: skip


@attrs.frozen
class Script:
    """What one host says. `gently`: each session is killed by itself at the end, and its output taken."""

    steps: list[Step] = attrs.field(
        repr=lambda steps: f"{steps[:30]}" + (f" and {len(steps) - 30} more" if steps[30:] else "")
    )
    tail: bytes = b""
    flips: tuple[tuple[int, int], ...] = ()
    cuts: tuple[int, ...] = (1 << 20,)
    eager: bool = True
    gently: bool = False
    hangs_up: bool = False

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Hypothesis would write down how it was made, which may be long."""
        printer.text(repr(self))

    def render(self, newest: int) -> bytes:
        """The bytes, for an agent that has seen session `newest` last."""
        slots: dict[int, int] = {}
        raw = bytearray()
        for step in self.steps:
            session = 0
            slot = step.slot
            if step.name in OPENERS:
                session = max(1, newest - step.back)
                slot = slots.get(session, step.slot)
                slots.setdefault(session, slot)
                newest = max(newest, session)
            elif step.name in OF_SESSIONS:
                session = max(1, newest - step.back)
                slot = slots.get(session, 0) + step.slot & 0xFFFF
            raw += HEADER.pack(len(step.body), NAMES[step.name], step.flags, slot, session, 0) + step.body
        raw += self.tail
        for at, value in self.flips:
            raw[at % len(raw)] ^= value
        return bytes(raw)


CUTS = st.sampled_from(((1 << 20,), (1, 15, 16, 17, 5000), (16, 4096), (1, 3000), (40_000, 1)))
LENGTHS = st.sampled_from((100, 100, 100, 200, 10, 1))


@st.composite
def conversations(draw: st.DrawFn) -> Script:
    """A hundred frames or so, for an agent that serves. Most leave it serving; some flip bits, some end it."""
    manner = draw(st.sampled_from(("",) * 20 + ("part", "header", "noise", "shutdown", "flips", "hang up")))
    length = draw(LENGTHS)
    frames = draw(st.lists(STEPS, min_size=length, max_size=length + 100))
    tail, hangs_up = b"", False
    flips: tuple[tuple[int, int], ...] = ()
    match manner:
        case "part":
            tail = draw(HEADERS)[: draw(st.integers(1, 15))]
        case "header":
            tail = draw(st.sampled_from(BAD_HEADERS) | HEADERS)
        case "noise":
            tail = draw(st.binary(min_size=1, max_size=60))
        case "shutdown":
            rest = [Step("SHUTDOWN", draw(_RIGHT["SHUTDOWN"] | _WRONG["SHUTDOWN"]))]
            frames.append(rest + [step for one in draw(st.lists(STEPS, max_size=5)) for step in one])
        case "flips":
            flips = tuple(
                draw(st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)), min_size=1, max_size=4))
            )
        case "hang up":
            hangs_up = True
            tail = draw(st.binary(max_size=15))
    return Script(
        [step for one in frames for step in one],
        tail,
        flips,
        cuts=draw(CUTS),
        eager=draw(st.sampled_from((True, False))),
        gently=draw(st.sampled_from((False, False, False, True))),
        hangs_up=hangs_up,
    )


@st.composite
def boots(draw: st.DrawFn) -> Script:
    """The first frames that an agent hears, which may lack a CONFIGURE or bring it wrong."""
    frames = [step for one in draw(st.lists(BOOT_STEPS, min_size=1, max_size=8)) for step in one]
    return Script(frames, draw(st.sampled_from((b"", b"", b"", *BAD_HEADERS))), cuts=draw(CUTS))
