"""Events as text: what may be one, and the lines in which a subscription tells of them. Sans-IO.

A line is `NAME JSON`, an event, or `! N`: so many events were dropped before the next. Rule 1: a line that cannot be
right raises RemoteProtocolError, and nothing else leaves this file for bytes of the guest. Rule 2: what the agent lets
pass is an event here too, or one guest program could end everybody's subscription. So the bounds are the agent's.

Invariant: what is kept is at most one unfinished line and the piece that was received last. Lines become events only
when they are asked for: 64 KiB of the smallest events would be megabytes of objects.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import attrs

from trio_sandbox.errors import RemoteProtocolError

MAX_NAME = 128
"""Characters of an event's name."""
MAX_JSON = 65_536
"""Bytes of an event's payload as JSON."""
MAX_DEPTH = 64
"""Arrays and objects within each other."""
MAX_LINE = MAX_NAME + len(" ") + MAX_JSON
"""Bytes of a line without its line feed."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_NOTICE = re.compile(rb"! ([1-9][0-9]{0,19})")
# Strings, to pass over what is in them; brackets; numbers over 1,024 characters. Nothing is looked at twice, whatever
# the text: the quantifiers are possessive, a string may lack its end, and a number is only tried at its beginning.
_TOKEN = re.compile(
    r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]|(?<![0-9])(?:-[0-9]{1024}|[0-9]{1025})',
    re.DOTALL,
)


@attrs.frozen
class Event:
    """Something that a program in the guest emitted.

    payload: what `json.loads` makes of its JSON. dropped: how many events of the subscription were lost right before
    this one.
    """

    name: str
    payload: Any
    dropped: int = 0


def check_name(name: str) -> None:
    """Raise ValueError for what is no name of an event, TypeError for what is no text."""
    if not isinstance(name, str):
        raise TypeError(f"an event's name is text, not {type(name).__name__}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:MAX_NAME]!r} is no event's name: 1 to {MAX_NAME} letters, digits, '.', '_' and '-'")


def encode_payload(payload: object) -> bytes:
    """The value as JSON on one line. Raises TypeError and ValueError for one that JSON, or an event, cannot hold."""
    try:
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise ValueError(f"a payload nested more than {MAX_DEPTH} deep") from None
    encoded = text.encode()
    if len(encoded) > MAX_JSON:
        raise ValueError(f"a payload of {len(encoded)} bytes of JSON, where {MAX_JSON} is the most")
    if problem := _beyond_bounds(text):
        raise ValueError(f"a payload {problem}")
    return encoded


class EventLines:
    """A subscription's output to events. dropped: how many were lost, as far as it was told yet."""

    def __init__(self) -> None:
        self.dropped = 0
        self._untold = 0  # dropped since the last event
        self._buffer = bytearray()
        self._searched = 0  # so many bytes at its beginning have no line feed

    def receive_data(self, data: bytes) -> None:
        """Take the next piece of the output, once `next_event_untrusted` has returned None."""
        self._buffer += data

    def next_event_untrusted(self) -> Event | None:
        """The next event, None when more must be received for it. Raises RemoteProtocolError."""
        while (line := self._next_line_untrusted()) is not None:
            if notice := _NOTICE.fullmatch(line):
                self._untold += int(notice[1])
                self.dropped += int(notice[1])
                continue
            name, payload = _parse_untrusted(line)
            untold, self._untold = self._untold, 0
            return Event(name, payload, untold)
        return None

    def end_untrusted(self) -> None:
        """Nothing follows. Raises RemoteProtocolError when that is in the middle of a line."""
        if self._buffer:
            raise RemoteProtocolError("the events ended in the middle of a line")

    def _next_line_untrusted(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._searched)
        if (len(self._buffer) if end < 0 else end) > MAX_LINE:
            raise RemoteProtocolError(f"an event's line is longer than {MAX_LINE} bytes")
        if end < 0:
            self._searched = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line


def _parse_untrusted(line: bytes) -> tuple[str, Any]:
    try:
        name, _, text = line.decode().partition(" ")
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(f"an event is not UTF-8: {error.reason} at byte {error.start}") from None
    if not _NAME.fullmatch(name):
        raise RemoteProtocolError(f"a line that is neither an event nor a count of lost ones: {line[:64]!r}")
    if len(line) - len(name) - 1 > MAX_JSON:
        raise RemoteProtocolError(f"an event {name!r} of more than {MAX_JSON} bytes")
    if problem := _beyond_bounds(text):
        raise RemoteProtocolError(f"an event {name!r} {problem}")
    try:
        return name, _DECODER.decode(text)
    except ValueError as error:  # also a number that is too long for Python
        raise RemoteProtocolError(f"an event {name!r} is not JSON: {error}") from None


def _beyond_bounds(text: str) -> str:
    """What makes the text too much for a reader of JSON, as the end of a sentence; "" when nothing does."""
    depth = 0
    for token in _TOKEN.findall(text):
        if token in ("[", "{"):
            depth += 1
            if depth > MAX_DEPTH:
                return f"nested more than {MAX_DEPTH} deep"
        elif token in ("]", "}"):
            depth -= 1
        elif token[0] != '"':
            return "with a number of more than 1024 characters"
    return ""


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
