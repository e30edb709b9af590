"""A subscription's lines to events: in any pieces the same, and bounded whatever comes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.client.event_lines import (
    MAX_DEPTH,
    MAX_JSON,
    MAX_LINE,
    MAX_NAME,
    Event,
    EventLines,
    check_name,
    encode_payload,
)
from trio_sandbox.errors import RemoteProtocolError

names = st.from_regex(r"[A-Za-z0-9._-]{1,12}", fullmatch=True)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('aé\\"[{\n😀'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)
happenings = st.lists(st.tuples(names, values) | st.integers(1, 2**64 - 1))


def told(happenings: Iterable[tuple[str, Any] | int]) -> bytes:
    """What the guest says of events, and of numbers of lost ones."""
    return b"".join(
        b"! %d\n" % one if isinstance(one, int) else b"%s %s\n" % (one[0].encode(), encode_payload(one[1]))
        for one in happenings
    )


def heard(lines: EventLines, *pieces: bytes) -> list[Event]:
    events = []
    for piece in pieces:
        lines.receive_data(piece)
        while (event := lines.next_event_untrusted()) is not None:
            events.append(event)
    return events


@given(happenings, st.data())
def test_any_pieces_make_the_same_events(given_: list[tuple[str, Any] | int], data: st.DataObject) -> None:
    text = told(given_)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    lines = EventLines()
    events = heard(lines, *(text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)))
    lines.end_untrusted()
    assert [(event.name, event.payload) for event in events] == [one for one in given_ if not isinstance(one, int)]
    lost = [one for one in given_ if isinstance(one, int)]
    assert lines.dropped == sum(lost)
    trailing = 0
    for one in reversed(given_):
        if not isinstance(one, int):
            break
        trailing += one
    assert sum(event.dropped for event in events) == sum(lost) - trailing


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"a 1\n", b"! 3\n", b'x {"a": [', b"]}\n", b"\n", b"! "])))
def test_any_bytes_make_events_or_one_error(pieces: list[bytes]) -> None:
    lines = EventLines()
    try:
        for event in heard(lines, *pieces):
            json.dumps(event.payload)
            check_name(event.name)
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"", "neither"),
        (b"noname", "not JSON"),
        (b" 1", "neither"),
        (b"na/me 1", "neither"),
        (b"x" * (MAX_NAME + 1) + b" 1", "neither"),
        ("näme 1".encode(), "neither"),
        (b'a "\xff"', "not UTF-8"),
        (b'a "\xed\xa0\x80"', "not UTF-8"),
        (b"a ", "not JSON"),
        (b"a 1 2", "not JSON"),
        (b"a {", "not JSON"),
        (b'a "\x01"', "not JSON"),
        ("a \ufeff1".encode(), "not JSON"),
        (b"a NaN", "NaN is no number"),
        (b"a -Infinity", "-Infinity is no number"),
        (b"a " + b"9" * 5000, "1024"),
        (b"a " + b"[" * 60_000, "nested more than 64"),
        (b"a " + b"[" * 65 + b"]" * 65, "nested more than 64"),
        (b"a " + b'{"":' * 15_000, "nested more than 64"),
        (b'a "' + b"x" * (MAX_JSON - 1) + b'"', "more than 65536"),
        (b"x" * 128 + b' "' + b"x" * MAX_JSON + b'"', "longer than"),
        (b"! 0", "neither"),
        (b"! -1", "neither"),
        (b"! 01", "neither"),
        (b"! 1.5", "neither"),
        (b"! ", "neither"),
        (b"!", "neither"),
        (b"! 1 ", "neither"),
        (b"! " + b"9" * 21, "neither"),
        ("! ٣".encode(), "neither"),
    ],
)
def test_a_line_that_cannot_be_right_is_named(line: bytes, what: str) -> None:
    with pytest.raises(RemoteProtocolError, match=what) as caught:
        heard(EventLines(), b"before 1\n" + line + b"\nafter 1\n")
    assert len(str(caught.value)) < 200


def test_a_line_without_end_is_refused_while_it_grows() -> None:
    lines = EventLines()
    heard(lines, b"a" * 100, *[b"b" * 100] * 600)
    with pytest.raises(RemoteProtocolError, match="longer than"):
        for _ in range(100):
            heard(lines, b"b" * 100)


def test_an_end_in_the_middle_of_a_line() -> None:
    lines = EventLines()
    assert heard(lines, b"a 1\nb") == [Event("a", 1)]
    with pytest.raises(RemoteProtocolError, match="middle"):
        lines.end_untrusted()


def test_the_largest_that_is_allowed_passes_both_ways() -> None:
    name = "n" * MAX_NAME
    check_name(name)
    value = "x" * (MAX_JSON - 2)
    line = told([(name, value)])
    assert len(line) == MAX_LINE + 1
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    # Only what is nested counts: not brackets side by side, nor those in strings.
    flat: list[Any] = [[[]]] * 500 + ["[" * 500, '\\"[{' * 100]
    for payload in (value, deep, flat, 10**1023, -(10**1022)):
        assert heard(EventLines(), told([(name, payload)])) == [Event(name, payload)]


def test_what_the_agent_lets_pass_is_an_event() -> None:
    """Blanks around and within, a name that comes twice, a half pair of surrogates, a number beyond doubles."""
    line = b'a  {"k" :\t1,\r"k": [2, "\\ud800", 1e999] } \n'
    assert heard(EventLines(), line) == [Event("a", {"k": [2, "\ud800", float("inf")]})]


def test_hostile_text_is_looked_at_once() -> None:
    """Each of these would take minutes, were any part of it tried again from every place."""
    for text in (
        b'"' + b'\\"' * 32_000,
        b"[" + b"1," * 32_000,
        b"1" * 1024 + b",1" * 30_000,
        b'"' * 65_000,
        b"\\" * 65_000,
    ):
        with pytest.raises(RemoteProtocolError):
            heard(EventLines(), b"a " + text + b"\n")
    lines = EventLines()
    assert heard(lines, *[b"x"] * 65_000) == []


def test_a_piece_becomes_events_one_by_one() -> None:
    lines = EventLines()
    lines.receive_data(b"a 1\n! 2\n! 3\na 2\nbroken\n")
    assert lines.next_event_untrusted() == Event("a", 1)
    assert lines.dropped == 0
    assert lines.next_event_untrusted() == Event("a", 2, dropped=5)
    with pytest.raises(RemoteProtocolError):
        lines.next_event_untrusted()


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ü", "a\n", "x" * 129, "!", "a\0"])
def test_wrong_names(name: str) -> None:
    with pytest.raises(ValueError, match="no event's name"):
        check_name(name)


@pytest.mark.parametrize("name", [None, 1, b"a"])
def test_names_that_are_no_text(name: Any) -> None:
    with pytest.raises(TypeError, match="text"):
        check_name(name)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (float("nan"), ValueError),
        ([float("-inf")], ValueError),
        ("\ud800", ValueError),
        (object(), TypeError),
        (b"bytes", TypeError),
        ({(1, 2): 3}, TypeError),
        (nested(65), ValueError),
        (nested(100_000), ValueError),
        (10**1024, ValueError),
        (-(10**1023), ValueError),
        (10**5000, ValueError),
        ("x" * (MAX_JSON - 1), ValueError),
        ("é" * (MAX_JSON // 2), ValueError),
    ],
    ids=lambda value: type(value).__name__,
)
def test_wrong_payloads(payload: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        encode_payload(payload)


def test_a_payload_that_holds_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="Circular"):
        encode_payload(loop)


def test_payloads_are_one_line() -> None:
    assert encode_payload({"a": "\n\r\u2028é", "b": [1, (2,)]}) == '{"a":"\\n\\r\u2028é","b":[1,[2]]}'.encode()
