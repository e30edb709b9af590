"""Whole scripts of a host, for the fuzzer of the agent: frames of every type, right ones, wrong ones, and noise.

A script knows no session ids, since these only grow in the life of an agent: a step says which of the sessions before
it it speaks of, and `Script.render` fills in the number. Most of what is drawn is one choice from a pool, because
drawing is what costs time; what makes a body wrong is drawn in detail.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any

import attrs
import msgpack
from hypothesis import strategies as st

from tests.guest.agent_client import BODY_MAX, CONFIGURE, END, HEADER, IDENTIFY, MORE, NAMES, TEMPLATE, exec_map
from tests.guest.fs_client import record

NUMBERS = (
    0, 1, 2, 7, 24, 64, 65, 80, 1000, 4096, 65_535, 65_536, 262_144, 262_145, 2**31, 2**32, 2**63 - 1, 2**63,
    2**64 - 1, -1, -2, -128, -(2**63),
)  # fmt: skip
WRONG: tuple[Any, ...] = (
    None, True, False, *NUMBERS, 0.5, float("inf"), "", "x", "/", b"", b"x", "\0", "x" * 300, b"x" * 70_000, [], [1],
    ["a"], [b"\0"], [[]], [[1, 2, 3]], [[7, -1, -1]] * 33, [["a", "b", "c"]], ["x"] * 5000, {}, {"a": {"b": [1]}},
    msgpack.ExtType(5, b"ext"), msgpack.ExtType(1, b"x" * 16),
)  # fmt: skip
RAW_WRONG = (b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\x91" * 500, b"\xc7")

PROGRAMS: tuple[Sequence[str | bytes], ...] = (
    ["true"], ["cat"], ["echo", "x"], ["sleep", "1000"], ["cat", "/bin/sh"], ["echo", "y" * 5000], ["cat", "-"],
    ["cat", "/tmp/a", "/dev/tty"], ["nothing"], ["/tmp"], [""], [b"/bin/\xff"], ["/agent"], ["true", "x" * 70_000],
    ["true"] * 4096, ["sh", "-c", "kill -STOP $$"], ["sh", "-c", "trap '' TERM HUP; echo deaf; exec cat"],
    ["sh", "-c", "exec <&-; exec sleep 1000"], ["sh", "-c", "while :; do echo again; done"],
    ["msb-event", "listen"], ["msb-event", "emit", "x", "[1]"], ["sh", "-c", "kill -SEGV $$"],
)  # fmt: skip
PATHS = (
    b"/tmp/a", b"/tmp/b", b"/tmp/d", b"/tmp/d/x", b"/tmp/link", b"/tmp/d/../a", b"/tmp", b"/", b"/etc/passwd", b"/dev",
    b"/proc/self/status", b"/proc", b"/dev/null", b"/dev/ptmx", b"/nowhere/x", b"/tmp/" + b"n" * 255, b"/tmp/\xff\n",
    b"/tmp/d" + b"/d" * 2000, b"/x" * 2100, b"/tmp/events.sock", b"/dev/pts/0", b"", b"tmp/a", b"/tmp/\0", b"/bin/sh",
)  # fmt: skip
EXEC_OPTIONS: dict[str, tuple[Any, ...]] = {
    "stdin": (True, True, False),
    "tty": (True, False),
    "rows": NUMBERS,
    "cols": (80, *NUMBERS),
    "window": (1, 100, 4096, *NUMBERS),
    "stdin_window": (1, 100, 4096, *NUMBERS),
    "timeout_ms": (0, 1, 5, 50, 10**6, 2**63 - 1, -1),
    "deadline_ms": (0, 1, 5, 50, 10**6, 9_223_372_036_854, 9_223_372_036_855),
    "cwd": ("/", "/tmp", "/nowhere", "tmp", "", "/etc/passwd"),
    "user": ("", "root", "0", "nobody", "0:0", "nobody:root", "x", ":", "4294967295"),
    "rlimits": ([], [[7, 16, 16]], [[9, 2**20, 2**20]], [[0, 0, 1]], [[99, 1, 1]], [[7, 0, 0]], [[3, -1, -1]] * 32),
    "env": ([], ["PATH=/bin", "MSB_EVENTS_SOCKET=/tmp/events.sock"], ["PATH=:"], ["=x"], ["x"], ["A=" + "b" * 9000]),
    "unheard_of": (None, [1, {"a": b""}]),
}
FS_OPTIONS: dict[str, tuple[Any, ...]] = {
    "to": PATHS,
    "owner": ("0", "root:root", ":0", "x", ":", "nobody", "1:2:3"),
    "user": ("", "root", "x"),
    "mode": (0o644, 0o755, 0, 0o7777, -1, 0o10000),
    "offset": (0, 1, 5, 2**40, 2**63 - 1, -1),
    "length": (-1, 0, 5, 2**40, 2**63 - 1, -2),
    "atomic": (True, False),
    "fsync": (True, False),
    "follow": (True, False),
    "recursive": (True, False),
    "deadline_ms": (0, 1, 20, 10**6),
    "window": (1, 4096, 262_144, 262_145),
    "stdin_window": (1, 4096, 262_144, 0),
}
FS_NAMES = (
    "write", "read", "list", "stat", "readlink", "mkdir", "remove", "remove_dir", "copy", "rename", "symlink", "chmod",
    "chown", "pack", "unpack", "format", "",
)  # fmt: skip
RECORDS = (
    record("", 0o40755), record("a", 0o100644, b"bytes"), record("d", 0o40755), record("d/x", 0o100600, b"x" * 5000),
    record("l", 0o120777, target=b"/tmp/a"), record("../a", 0o100644), record("/a", 0o100644, b"x"),
    record("l/x", 0o100644, b"x"), record("fifo", 0o10644), record("a", 0o100644, b"", size=2**40),
    record("n" * 300, 0o40755), record("a", 0o100644, size=-1), record("t", 0o100644, mtime_ns=-(2**63)),
    b"\xc1", b"\x80",
)  # fmt: skip
INPUTS = (b"", b"", b"x", b"line\n", b"y" * 1000, b"z" * 16_384, b"\4\3\x1c", b"w" * 65_536, *RECORDS)
EVENTS = (
    b"1",
    b"{}",
    b'{"a":[1,"x"]}',
    b"",
    b"[",
    b'"\xff"',
    b"[" * 65 + b"]" * 65,
    b'"' + b"x" * 65_000 + b'"',
    b"1 2",
)
EVENT_NAMES = ("x", "y.z", "a_b-c", "n" * 128, "", "n" * 129, "a b", "\0", "é")


def _samples(options: dict[str, tuple[Any, ...]], count: int) -> tuple[dict[str, Any], ...]:
    """Dictionaries of 0 to 5 of these, always the same ones, the simple ones first."""
    draw = random.Random(0)
    samples = [
        {key: draw.choice(options[key]) for key in draw.sample(sorted(options), min(size % 6, len(options)))}
        for size in range(count)
    ]
    return tuple(sorted(samples, key=len))


def _maps(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Maps with the keys of this type, most of them right."""
    number = st.sampled_from((0, 1, 9, 15, *NUMBERS))
    if name == "EXEC":
        return st.builds(
            lambda argv, options: {**exec_map(argv, env=["PATH=/bin"]), **options},
            st.sampled_from(PROGRAMS), st.sampled_from(_samples(EXEC_OPTIONS, 300)),
        )  # fmt: skip
    if name == "FS":
        return st.builds(
            lambda op, path, options: {"op": op, "path": path, **options},
            st.sampled_from(FS_NAMES), st.sampled_from(PATHS), st.sampled_from(_samples(FS_OPTIONS, 300)),
        )  # fmt: skip
    if name == "EMIT":
        return st.builds(
            lambda event, payload: {"name": event, "payload": payload},
            st.sampled_from(EVENT_NAMES), st.sampled_from(EVENTS),
        )  # fmt: skip
    if name == "SUBSCRIBE":
        options = _samples({"drop_oldest": (True, False), "window": (1, 100, 262_144, 0)}, 20)
        return st.builds(
            lambda event, more: {"name": event, **more},
            st.sampled_from(("", "", *EVENT_NAMES)), st.sampled_from(options),
        )  # fmt: skip
    if name == "RESIZE":
        return st.builds(lambda rows, cols: {"rows": rows, "cols": cols}, number, st.sampled_from((80, 1, 0, 65_536)))
    if name in ("CONFIGURE", "IDENTIFY"):
        return st.sampled_from(
            (CONFIGURE, TEMPLATE, {**CONFIGURE, "version": 2}) if name == "CONFIGURE" else (IDENTIFY,)
        )
    key = {"SIGNAL": "signal", "DEADLINE": "deadline_ms", "CLOCK": "time_ns", "SHUTDOWN": "grace_ms"}[name]
    if name == "SIGNAL":
        number = st.sampled_from((1, 2, 9, 15, 18, 19, 28, 64, 65, 0, -1, 2**40))
    if name == "SHUTDOWN":
        number = st.sampled_from((0, 1, 20, 100, -1, 2**40))
    return number.map(lambda value: {key: value})


def packed(pairs: Sequence[tuple[Any, Any]]) -> bytes:
    """A map as it is, keys that come twice included."""
    packer = msgpack.Packer()
    return bytes(packer.pack_map_pairs(pairs))


@st.composite
def _mangled(draw: st.DrawFn, found: dict[str, Any]) -> bytes:
    """The map with something wrong in it, mostly."""
    pairs: list[tuple[Any, Any]] = list(found.items())
    at = draw(st.integers(0, len(pairs) - 1))
    match draw(st.sampled_from(("value", "raw", "bytes", "key", "drop", "twice", "more", "cut", "behind"))):
        case "value":
            pairs[at] = (pairs[at][0], draw(st.sampled_from(WRONG)))
        case "key":
            pairs[at] = (draw(st.sampled_from((1, b"op", "", "Argv", "argv", None, "user"))), pairs[at][1])
        case "drop":
            del pairs[at]
        case "twice":
            pairs.append(pairs[at])
        case "more":
            pairs.insert(at, ("unheard_of", draw(st.sampled_from(WRONG))))
        case "raw":
            head = packed(pairs[:at] + pairs[at + 1 :] + [("x", None)])[:-3]
            return head + bytes(msgpack.packb(pairs[at][0])) + draw(st.sampled_from(RAW_WRONG))
        case "cut":
            return packed(pairs)[: -1 - draw(st.integers(0, 40))]
        case "behind":
            return packed(pairs) + draw(st.binary(min_size=1, max_size=5))
        case _:
            raw = bytearray(packed(pairs))
            for _ in range(draw(st.integers(1, 4))):
                raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
            return bytes(raw)
    return packed(pairs)


CREDITS = (
    *(struct.pack("<I", number) for number in (1, 100, 4096, 0, 65_536, 262_144, 2**32 - 1)), b"", b"\1", b"\1\0\0\0\0"
)  # fmt: skip


def body_of(name: str) -> st.SearchStrategy[bytes]:
    """Bodies of frames of this type: three in four as they should be, one mangled or mere bytes."""
    if name == "STDIN":
        return st.sampled_from(INPUTS)
    if name == "CREDIT":
        return st.sampled_from(CREDITS)
    if name in ("KILL", "CLIENT_GONE"):
        return st.sampled_from((b"", b"", b"", b"", b"", b"", b"x", b"\x80"))
    if name == "PING":
        return st.sampled_from((b"", b"x", b"y" * 64, b"z" * 65)) | st.binary(max_size=64)
    maps = _maps(name)
    right = maps.map(msgpack.packb)
    return st.one_of(
        right, right, right, right, right, right, maps.flatmap(_mangled), maps.flatmap(_mangled), st.binary(max_size=80)
    )


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
    "PING": 10, "EXEC": 5, "STDIN": 16, "CREDIT": 12, "KILL": 6, "SIGNAL": 9, "DEADLINE": 6, "RESIZE": 8, "FS": 5,
    "EMIT": 8, "SUBSCRIBE": 4, "CLOCK": 5, "CLIENT_GONE": 2, "IDENTIFY": 2, "CONFIGURE": 2,
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
_BODIES = {name: body_of(name) for name in (*FREQUENCIES, "SHUTDOWN")}


def _heads(frequencies: dict[str, int]) -> st.SearchStrategy[Step]:
    """Steps without a body, always from the same thousand, so that they cost one choice; the simple ones first."""
    draw = random.Random(0)
    names = draw.choices(list(frequencies), list(frequencies.values()), k=1000)
    heads = [
        Step(name, b"", *(draw.choice(pool.get(name, (0,))) for pool in (_FLAGS, _BACK, _SLOTS))) for name in names
    ]
    return st.sampled_from(sorted(heads, key=lambda head: (bool(head.flags), abs(head.back), head.slot)))


@st.composite
def _steps(draw: st.DrawFn, heads: st.SearchStrategy[Step]) -> list[Step]:
    """One frame, or a message in several."""
    head = draw(heads)
    body = draw(_BODIES[head.name])
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
    HEADER.pack(0, 0x0C, 0, 3, 9, 0),
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
    length = draw(LENGTHS)
    frames = draw(st.lists(STEPS, min_size=length, max_size=length + 100))
    tail, hangs_up = b"", False
    flips: tuple[tuple[int, int], ...] = ()
    match draw(st.sampled_from(("",) * 20 + ("part", "header", "noise", "shutdown", "flips", "hang up"))):
        case "part":
            tail = draw(HEADERS)[: draw(st.integers(1, 15))]
        case "header":
            tail = draw(st.sampled_from(BAD_HEADERS) | HEADERS)
        case "noise":
            tail = draw(st.binary(min_size=1, max_size=60))
        case "shutdown":
            rest = [Step("SHUTDOWN", draw(_BODIES["SHUTDOWN"]))]
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
