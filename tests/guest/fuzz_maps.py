"""Which bodies docs/wire.md lets a host send: a second reader of them, that shares nothing with the agent's.

A value is what msgpack says, but strings and byte strings are `Text` and `Bytes`, and what no key here can want (a map,
a float, an extension, an integer beyond 64 bits signed, lists within lists within lists) is `OTHER`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Final

import attrs

WINDOW_MAX = 256 * 1024
MILLISECONDS_MAX = (2**63 - 1) // 1_000_000
LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


class Malformed(Exception):
    """These bytes are no msgpack."""


class Text(bytes):
    """A msgpack string."""


class Bytes(bytes):
    """A msgpack byte string."""


class _Other:
    pass


OTHER: Final = _Other()
Value = Text | Bytes | int | bool | None | list["Value"] | _Other
Check = Callable[[Value], bool]

# First byte: how many bytes of length or number follow.
_STR, _BIN = {0xD9: 1, 0xDA: 2, 0xDB: 4}, {0xC4: 1, 0xC5: 2, 0xC6: 4}
_EXT, _FIXEXT = {0xC7: 1, 0xC8: 2, 0xC9: 4}, {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_UINT, _INT = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}, {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FLOAT, _ARRAY, _MAP = {0xCA: 4, 0xCB: 8}, {0xDC: 2, 0xDD: 4}, {0xDE: 2, 0xDF: 4}


@attrs.define
class _Reader:
    raw: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        if count > len(self.raw) - self.at:
            raise Malformed
        self.at += count
        return self.raw[self.at - count : self.at]

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "big", signed=signed)

    def head(self) -> tuple[Value, int]:
        """A value that is no container and 0; or OTHER and its items, where a list's are counted negative."""
        first = self.take(1)[0]
        if first < 0x80 or first >= 0xE0:
            return (first if first < 0x80 else first - 0x100), 0
        if first < 0x90:
            return OTHER, 2 * (first & 15)
        if first < 0xA0:
            return ([], 0) if first == 0x90 else (OTHER, -(first & 15))
        if first < 0xC0:
            return Text(self.take(first & 31)), 0
        if first in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[first], 0
        return self._long_head(first)

    def _long_head(self, first: int) -> tuple[Value, int]:
        if size := _STR.get(first):
            return Text(self.take(self.number(size))), 0
        if size := _BIN.get(first):
            return Bytes(self.take(self.number(size))), 0
        if size := _UINT.get(first):
            number = self.number(size)
            return (number if number < 2**63 else OTHER), 0
        if size := _INT.get(first):
            return self.number(size, signed=True), 0
        if size := _ARRAY.get(first):
            return ([], 0) if not (count := self.number(size)) else (OTHER, -count)
        if size := _MAP.get(first):
            return OTHER, 2 * self.number(size)
        if size := _EXT.get(first):
            self.take(self.number(size) + 1)
        elif size := _FIXEXT.get(first):
            self.take(size + 1)
        elif size := _FLOAT.get(first):
            self.take(size)
        else:
            raise Malformed
        return OTHER, 0

    def value(self, depth: int = 2) -> Value:
        value, items = self.head()
        if items < 0 and depth:
            return [self.value(depth - 1) for _ in range(-items)]
        pending = abs(items)
        while pending:
            pending += abs(self.head()[1]) - 1
        return value


def read_map(raw: bytes, known: Container[bytes]) -> dict[bytes, Value]:
    """Raises Malformed for what is no map of strings, has a known key twice, or does not end with the bytes."""
    reader = _Reader(raw)
    first = raw[0] if raw else 0
    if first & 0xF0 != 0x80 and first not in _MAP:
        raise Malformed
    found: dict[bytes, Value] = {}
    for _ in range(reader.head()[1] // 2):
        key = reader.value()
        if not isinstance(key, Text) or (key in found and key in known):
            raise Malformed
        found[bytes(key)] = reader.value()
    if reader.at != len(raw):
        raise Malformed
    return found


def _integer(low: int, high: int) -> Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _texts(most: int, check: Check, least: int = 0) -> Check:
    return lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(check, value))


def _is_bool(value: Value) -> bool:
    return isinstance(value, bool)


def _is_plain(value: Value) -> bool:
    return isinstance(value, (Text, Bytes)) and 0 not in value


def _is_plain_text(value: Value) -> bool:
    return isinstance(value, Text) and 0 not in value


def _is_assignment(value: Value) -> bool:
    return isinstance(value, (Text, Bytes)) and 0 not in value and value.find(b"=") > 0


def _plain(most: int) -> Check:
    return lambda value: isinstance(value, (Text, Bytes)) and len(value) <= most and 0 not in value


def _name(least: int, most: int) -> Check:
    return lambda value: isinstance(value, Text) and least <= len(value) <= most and LETTERS.issuperset(value)


def _is_machine_id(value: Value) -> bool:
    return isinstance(value, Text) and len(value) == 32 and set(value) <= set(b"0123456789abcdef")


def _is_entropy(value: Value) -> bool:
    return isinstance(value, Bytes) and 32 <= len(value) <= 512


def _is_serial(value: Value) -> bool:
    return isinstance(value, Text) and len(value) <= 20 and 0 not in value


def _is_fstype(value: Value) -> bool:
    return isinstance(value, Text) and len(value) <= 16 and 0 not in value


def _is_pattern(value: Value) -> bool:
    return isinstance(value, Text) and 1 <= len(value) <= 256 and value[:1] == b"/" and 0 not in value


def _is_limit(value: Value) -> bool:
    if not isinstance(value, list) or len(value) != 3:
        return False
    resource, soft, hard = value
    limit = _integer(-1, 2**63 - 1)
    return _integer(0, 255)(resource) and limit(soft) and limit(hard)


_MILLISECONDS, _WINDOW, _SIZE = _integer(0, MILLISECONDS_MAX), _integer(1, WINDOW_MAX), _integer(1, 65_535)
_TIME = _integer(0, 2**63 - 1)
_IDENTITY: dict[bytes, Check] = {
    b"time_ns": _TIME, b"entropy": _is_entropy, b"hostname": _name(1, 64), b"machine_id": _is_machine_id,
}  # fmt: skip
_WINDOWS: dict[bytes, Check] = {b"deadline_ms": _MILLISECONDS, b"window": _WINDOW, b"stdin_window": _WINDOW}

KEYS: Mapping[str, Mapping[bytes, Check]] = {
    "CONFIGURE": {
        **_IDENTITY, b"version": _integer(0, 2**31 - 1), b"base": _is_serial, b"upper": _is_serial,
        b"disk": _is_serial, b"fstype": _is_fstype, b"template": _is_bool, b"warm": _texts(64, _is_pattern),
    },
    "IDENTIFY": _IDENTITY,
    "SHUTDOWN": {b"grace_ms": _integer(0, 2**31 - 1), b"signal": _integer(1, 64)},
    "CLOCK": {b"time_ns": _TIME},
    "SIGNAL": {b"signal": _integer(1, 64)},
    "DEADLINE": {b"deadline_ms": _MILLISECONDS},
    "RESIZE": {b"rows": _SIZE, b"cols": _SIZE},
    "EXEC": {
        **_WINDOWS, b"argv": _texts(4096, _is_plain, least=1), b"env": _texts(65_536, _is_assignment),
        b"cwd": _is_plain_text, b"user": _is_plain_text, b"stdin": _is_bool, b"rlimits": _texts(32, _is_limit),
        b"timeout_ms": _MILLISECONDS, b"tty": _is_bool, b"rows": _SIZE, b"cols": _SIZE, b"make_cwd": _is_bool,
    },
    "FS": {
        **_WINDOWS, b"op": lambda value: isinstance(value, Text), b"path": _plain(4096), b"to": _plain(4096),
        b"owner": _plain(512), b"user": _plain(512), b"mode": _integer(-1, 0o7777), b"offset": _TIME,
        b"length": _integer(-1, 2**63 - 1), b"atomic": _is_bool, b"fsync": _is_bool, b"follow": _is_bool,
        b"recursive": _is_bool, b"root": _plain(4096), b"replace": _is_bool, b"append": _is_bool,
    },
    "EMIT": {b"name": _name(1, 128), b"payload": lambda value: isinstance(value, Bytes)},
    "SUBSCRIBE": {b"name": _name(0, 128), b"drop_oldest": _is_bool, b"window": _WINDOW},
}  # fmt: skip
_REQUIRED: Mapping[str, set[bytes]] = {
    "EXEC": {b"argv"},
    "FS": {b"op", b"path"},
    "SHUTDOWN": {b"grace_ms"},
    "SUBSCRIBE": {b"name"},
    "CONFIGURE": {*_IDENTITY, b"version"},
}
FS_OPS = (
    b"read", b"write", b"list", b"stat", b"readlink", b"mkdir", b"remove", b"remove_dir", b"copy", b"rename",
    b"symlink", b"chmod", b"chown", b"pack", b"unpack", b"sync",
)  # fmt: skip
ROOTED = (b"write", b"mkdir", b"remove", b"remove_dir", b"symlink", b"unpack")


def _fs_makes_sense(found: Mapping[bytes, Value]) -> bool:
    def text(key: bytes) -> bytes:
        value = found.get(key, b"")
        return value if isinstance(value, bytes) else b""

    op, mode = text(b"op"), found.get(b"mode", -1)
    needs = {
        b"copy": text(b"to")[:1] == b"/",
        b"rename": text(b"to")[:1] == b"/",
        b"symlink": text(b"to") != b"",
        b"chmod": isinstance(mode, int) and mode >= 0,
        b"chown": text(b"owner") != b"",
    }
    if (root := text(b"root")) != b"":
        may_have = root[:1] == b"/" and op in ROOTED
    else:
        may_have = not found.get(b"replace") and not found.get(b"append")
    return op not in FS_OPS or (text(b"path")[:1] == b"/" and may_have and needs.get(op, True))


def _names_a_root(found: Mapping[bytes, Value]) -> bool:
    if found.get(b"disk"):
        return not found.get(b"base") and not found.get(b"upper") and found.get(b"template") is not True
    return bool(found.get(b"base")) and bool(found.get(b"upper")) and not found.get(b"fstype")


def is_good_map(name: str, raw: bytes) -> bool:
    """Whether the body of this type of frame is what it carries. Of an EMIT's payload only the type is looked at."""
    checks = KEYS[name]
    try:
        found = read_map(raw, checks)
    except Malformed:
        return False
    if not found.keys() >= _REQUIRED.get(name, checks.keys()):
        return False
    if not all(checks[key](value) for key, value in found.items() if key in checks):
        return False
    if name == "CONFIGURE":
        return _names_a_root(found) and (found.get(b"template") is True or not found.get(b"warm"))
    return name != "FS" or _fs_makes_sense(found)


def is_good_body(name: str, raw: bytes) -> bool:
    """The same for every type that a host may send."""
    if name in KEYS:
        return is_good_map(name, raw)
    if name in ("KILL", "CLIENT_GONE", "FREEZE", "THAW"):
        return not raw
    if name == "CREDIT":
        return len(raw) == 4
    return name != "PING" or len(raw) <= 64
