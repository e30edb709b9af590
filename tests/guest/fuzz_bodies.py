"""Bodies of a host's frames, for the fuzzer of the agent. Programs and paths are those of the chamber."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any

import msgpack
from hypothesis import strategies as st

from tests.guest.agent_client import CONFIGURE, DISK, IDENTIFY, TEMPLATE, exec_map
from tests.guest.fs_client import record

NUMBERS = (
    0, 1, 2, 7, 24, 64, 65, 80, 1000, 4096, 65_535, 65_536, 262_144, 262_145, 2**31, 2**32, 2**63 - 1, 2**63,
    2**64 - 1, -1, -2, -128, -(2**63),
)  # fmt: skip
WRONG: tuple[Any, ...] = (
    None, True, False, *NUMBERS, 0.5, float("inf"), "", "x", "/", b"", b"x", b"tmp/a", b"/\0", "\0", "é", "n" * 129,
    ["=x"], ["x", "A=\0"], "x" * 300, b"x" * 70_000, [], [1],
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
    b"/tmp/d" + b"/d" * 2000, b"/x" * 2100, b"/tmp/events.sock", b"/dev/pts/0", b"/bin/sh",
)  # fmt: skip
EXEC_OPTIONS: dict[str, tuple[Any, ...]] = {
    "stdin": (True, True, False),
    "tty": (True, False),
    "rows": (1, 24, 65_535),
    "cols": (1, 80, 65_535),
    "window": (1, 100, 4096, 65_536, 262_144),
    "stdin_window": (1, 100, 4096, 65_536, 262_144),
    "timeout_ms": (0, 1, 5, 50, 10**6, 9_223_372_036_854),
    "deadline_ms": (0, 1, 5, 50, 10**6, 9_223_372_036_854),
    "cwd": ("/", "/tmp", "/dev", "/tmp/d", "/nowhere", "tmp", "", "/etc/passwd"),
    "make_cwd": (True, False),
    "user": ("", "", "", "", "", "root", "0:0", "nobody", "x", ":", "4294967295"),
    "rlimits": ([], [[7, 16, 16]], [[9, 2**20, 2**20]], [[0, 0, 1]], [[99, 1, 1]], [[7, 0, 0]], [[3, -1, -1]] * 32),
    "env": ([], ["PATH=/bin", "MSB_EVENTS_SOCKET=/tmp/events.sock"], ["PATH=:"], ["A=" + "b" * 9000]),
    "unheard_of": (None, [1, {"a": b""}]),
}
FS_OPTIONS: dict[str, tuple[Any, ...]] = {
    "to": PATHS,
    "owner": ("0", "root:root", ":0", "x", "nobody", "1:2:3"),
    "user": ("", "", "", "x"),
    "mode": (0o644, 0o755, 0, 0o7777),
    "offset": (0, 1, 5, 2**40, 2**63 - 1),
    "length": (-1, 0, 5, 2**40, 2**63 - 1),
    "atomic": (True, False),
    "fsync": (True, False),
    "follow": (True, False),
    "recursive": (True, False),
    "root": (b"", b"/tmp", b"/", b"/nowhere", b"tmp"),
    "replace": (True, False),
    "append": (True, False),
    "deadline_ms": (0, 1, 20, 10**6),
    "window": (1, 4096, 262_144),
    "stdin_window": (1, 4096, 262_144),
}
# What some operations cannot do without, and the others do not mind.
_FS_USUAL = {"to": b"/tmp/b", "owner": "0", "mode": 0o755}
FS_NAMES = (
    "write", "read", "list", "stat", "readlink", "mkdir", "remove", "remove_dir", "copy", "rename", "symlink", "chmod",
    "chown", "pack", "unpack", "sync", "format", "",
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
    b"2",
    b"[[]]",
    b"",
    b"[",
    b'"\xff"',
    b"[" * 65 + b"]" * 65,
    b'"' + b"x" * 65_000 + b'"',
    b"1 2",
)
EVENT_NAMES = ("x", "x", "x", "y.z", "a_b-c", "n" * 128)


def _samples(options: dict[str, tuple[Any, ...]], count: int) -> tuple[dict[str, Any], ...]:
    """Dictionaries of 0 to 5 of these, always the same ones, the simple ones first."""
    draw = random.Random(0)
    samples = [
        {key: draw.choice(options[key]) for key in draw.sample(sorted(options), min(size % 6, len(options)))}
        for size in range(count)
    ]
    return tuple(sorted(samples, key=len))


SIZES = st.sampled_from((80, 1, 24, 65_535))


def _maps(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Maps that are right for this type; what they ask for need not be possible."""
    number = st.sampled_from((0, 1, 5, 20, 1000, 10**6))
    if name == "EXEC":
        return st.builds(
            lambda argv, options: {**exec_map(argv, env=["PATH=/bin"]), **options},
            st.sampled_from(PROGRAMS), st.sampled_from(_samples(EXEC_OPTIONS, 300)),
        )  # fmt: skip
    if name == "FS":
        return st.builds(
            lambda op, path, options: {"op": op, "path": path, **_FS_USUAL, **options},
            st.sampled_from(FS_NAMES), st.sampled_from(PATHS), st.sampled_from(_samples(FS_OPTIONS, 300)),
        )  # fmt: skip
    if name == "EMIT":
        return st.builds(
            lambda event, payload: {"name": event, "payload": payload},
            st.sampled_from(EVENT_NAMES), st.sampled_from(EVENTS),
        )  # fmt: skip
    if name == "SUBSCRIBE":
        options = _samples({"drop_oldest": (True, False), "window": (1, 100, 262_144)}, 20)
        return st.builds(
            lambda event, more: {"name": event, **more},
            st.sampled_from(("", "", *EVENT_NAMES)), st.sampled_from(options),
        )  # fmt: skip
    if name == "RESIZE":
        return st.builds(lambda rows, cols: {"rows": rows, "cols": cols}, SIZES, SIZES)
    if name in ("CONFIGURE", "IDENTIFY"):
        return st.sampled_from(
            (CONFIGURE, TEMPLATE, DISK, {**CONFIGURE, "version": 2}) if name == "CONFIGURE" else (IDENTIFY,)
        )
    key = {"SIGNAL": "signal", "DEADLINE": "deadline_ms", "CLOCK": "time_ns", "SHUTDOWN": "grace_ms"}[name]
    if name == "SIGNAL":
        number = st.sampled_from((1, 2, 9, 15, 18, 19, 28, 64))
    if name == "SHUTDOWN":
        number = st.sampled_from((0, 1, 20, 100))
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


def right_bodies(name: str) -> st.SearchStrategy[bytes]:
    """Bodies that this type of frame carries, or that say by their length alone that they are none."""
    if name == "STDIN":
        return st.sampled_from(INPUTS)
    if name == "CREDIT":
        return st.sampled_from(CREDITS)
    if name in ("KILL", "CLIENT_GONE"):
        return st.just(b"")
    if name == "PING":
        return st.sampled_from((b"", b"x", b"y" * 64, b"z" * 65)) | st.binary(max_size=64)
    return _maps(name).map(msgpack.packb)


def wrong_bodies(name: str) -> st.SearchStrategy[bytes]:
    """Bodies that are wrong, mostly: mangled maps, or mere bytes."""
    mere = st.binary(max_size=80)
    return mere if name in ("STDIN", "CREDIT", "KILL", "CLIENT_GONE", "PING") else _maps(name).flatmap(_mangled) | mere
