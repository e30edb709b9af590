"""The codec: any bytes come back as they were, and damage is no entry."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.logs.entry import (
    LATEST,
    LogSource,
    decode_after,
    decode_line,
    encode_after,
    encode_line,
    microseconds,
)

TIMES = st.integers(min_value=1, max_value=LATEST - 1)
SESSIONS = st.none() | st.integers(min_value=0, max_value=(1 << 64) - 1)


@given(us=TIMES, source=st.sampled_from(LogSource), session=SESSIONS, data=st.binary() | st.text().map(str.encode))
def test_an_entry_comes_back_as_it_was(us: int, source: LogSource, session: int | None, data: bytes) -> None:
    line = encode_line(us, source, session, data)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    entry = decode_line(line)
    assert entry is not None
    assert (entry.source, entry.session_id, entry.data) == (source, session, data)
    assert microseconds(entry.timestamp_ms) == us == int(entry.cursor)
    assert entry.text() == data.decode(errors="replace")


@given(us=TIMES)
def test_the_first_line_of_a_later_file_is_no_entry(us: int) -> None:
    line = encode_after(us)
    assert decode_after(line) == us and decode_line(line) is None


def test_text_is_readable_on_disk_and_other_bytes_are_base64() -> None:
    assert json.loads(encode_line(1_500, LogSource.STDOUT, 7, "größe\n".encode())) == {
        "t": 1.5,
        "s": "stdout",
        "id": 7,
        "d": "größe\n",
    }
    assert json.loads(encode_line(2, LogSource.SYSTEM, None, b"\xff")) == {"t": 0.002, "s": "system", "b": "/w=="}


@given(line=st.binary())
def test_any_bytes_at_all_raise_nothing(line: bytes) -> None:
    decode_line(line)
    decode_after(line)


@given(data=st.binary(max_size=40), position=st.integers(min_value=0), flip=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_line_is_skipped_or_still_an_entry(data: bytes, position: int, flip: int, *, cut: bool) -> None:
    line = bytearray(encode_line(1_764_041_478_123_456, LogSource.STDERR, 3, data))
    position %= len(line)
    if cut:
        del line[position:]
    else:
        line[position] ^= flip
    entry = decode_line(bytes(line))
    assert entry is None or entry.source in list(LogSource)


WRONG = [
    b"[" * 100_000,
    b"1" * 10_000,
    b'{"t":1,"s":"stdout"}',
    b'{"t":1,"s":"stdout","d":"x","b":"eA=="}',
    b'{"t":1,"s":"stdout","d":7}',
    b'{"t":1,"s":"stdout","b":"not base64!"}',
    b'{"t":1,"s":"stdout","d":"\\ud800"}',
    b'{"t":1,"s":"nowhere","d":"x"}',
    b'{"t":1,"s":["stdout"],"d":"x"}',
    b'{"t":-1,"s":"stdout","d":"x"}',
    b'{"t":1e300,"s":"stdout","d":"x"}',
    b'{"t":NaN,"s":"stdout","d":"x"}',
    b'{"t":true,"s":"stdout","d":"x"}',
    b'{"t":1,"s":"stdout","id":-1,"d":"x"}',
    b'{"t":1,"s":"stdout","id":1.0,"d":"x"}',
    b'{"t":1,"s":"stdout","id":true,"d":"x"}',
    b"\xff\xfe",
    b"",
]


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_no_entry(line: bytes) -> None:
    assert decode_line(line) is None
