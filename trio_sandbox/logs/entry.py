"""One entry of a log, and the line of JSON that it is on disk. No I/O.

    {"t": 1764041478123.456, "s": "stdout", "id": 7, "d": "text"}      "b" for "d": bytes that are not UTF-8, in base64
    {"after": 1764041470000.000}                                       first line of a file that follows another one

`t` counts milliseconds since the epoch. Its microseconds make it unique: within the logs of one sandbox no two entries
have the same time, and they are written in the order of their times. So a time is all that a cursor has to be.

Invariant: a line that is damaged, in whatever way, is no entry and raises nothing.
"""

from __future__ import annotations

import base64
import enum
import json
from collections.abc import Mapping
from json.encoder import encode_basestring

import attrs

MAX_LINE = 1 << 20
"""Bytes of a line. A piece of 64 KiB makes less than 400 KiB, whatever its bytes are."""
MAX_DATA = 65_536
"""Bytes of an entry's data, as of a frame's."""
LATEST = (1 << 42) * 1000
"""Microseconds beyond which a float of milliseconds does not tell them apart: the year 2109."""


class LogSource(enum.StrEnum):
    """Where an entry comes from."""

    STDOUT = "stdout"
    STDERR = "stderr"
    OUTPUT = "output"
    """A program on a terminal, which has one stream."""
    SYSTEM = "system"
    """The sandbox itself: its lifecycle, what was lost, its runtime's messages, the console of the guest's kernel."""


PROGRAMS = (LogSource.STDOUT, LogSource.STDERR, LogSource.OUTPUT)
"""The sources that are read where nobody names any."""


@attrs.frozen
class LogEntry:
    """A piece of output as it was captured: what one read of the program's pipe gave, not a line.

    timestamp_ms: when, since the epoch. source: a LogSource, which is a str. session_id: the program's number in its
    run of the sandbox; None for "system". cursor: `log_stream(from_cursor=…)` goes on after this entry.
    """

    timestamp_ms: float
    source: LogSource
    session_id: int | None
    data: bytes
    cursor: str

    def text(self) -> str:
        """The data as UTF-8; bytes that are none are replaced. Cut into pieces as it is, a character may be, too."""
        return self.data.decode("utf-8", errors="replace")


def encode_line(us: int, source: LogSource, session: int | None, data: bytes) -> bytes:
    """The line of an entry, with its end. us: its time in microseconds."""
    head = f'{{"t":{us // 1000}.{us % 1000:03d},"s":"{source}"'
    if session is not None:
        head += f',"id":{session}'
    try:
        return f'{head},"d":{encode_basestring(data.decode())}}}\n'.encode()
    except UnicodeDecodeError:
        return f'{head},"b":"'.encode() + base64.b64encode(data) + b'"}\n'


def encode_after(us: int) -> bytes:
    """The first line of a file that follows one whose last entry is of this time."""
    return f'{{"after":{us // 1000}.{us % 1000:03d}}}\n'.encode()


def decode_line(line: bytes) -> LogEntry | None:
    """The entry that a line holds; None for any other line."""
    match _plain(line):
        case {"t": time, "s": str(source), **rest}:
            us = _microseconds(time)
            data = _data(rest)
            session = rest.get("id")
            if us is None or data is None or source not in _SOURCES:
                return None
            if session is None or (type(session) is int and session >= 0):
                return LogEntry(us / 1000, _SOURCES[source], session, data, str(us))
    return None


def decode_after(line: bytes) -> int | None:
    """The time that a first line tells, in microseconds; None for any other line."""
    match _plain(line):
        case {"after": time}:
            return _microseconds(time)
    return None


def microseconds(timestamp_ms: float) -> int:
    """A time of an entry as a whole number."""
    return round(timestamp_ms * 1000)


_SOURCES = {source.value: source for source in LogSource}


def _plain(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _microseconds(time: object) -> int | None:
    if type(time) not in (int, float) or not isinstance(time, (int, float)) or not 0 <= time < LATEST / 1000:
        return None
    return microseconds(time)


def _data(fields: Mapping[object, object]) -> bytes | None:
    try:
        match fields:
            case {"d": str(text)} if "b" not in fields:
                return text.encode()
            case {"b": str(text)} if "d" not in fields:
                return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    return None
