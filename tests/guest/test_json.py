"""What the agent takes for JSON: never more than Python does, and not less but for what it says."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.guest.running import SANITIZERS

DEPTH_MAX = 64
NUMBER_MAX = 1024

SETTINGS = settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Checker:
    """The agent's check, in a program of its own that the sanitizers watch."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **SANITIZERS}
        )

    def __call__(self, text: bytes | str) -> str:
        """ "ok", or what is wrong with the text."""
        assert self.process.stdin and self.process.stdout
        raw = text.encode() if isinstance(text, str) else text
        self.process.stdin.write(raw.hex().encode() + b"\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().decode()
        assert answer, "the check came to its end"
        return answer.rstrip("\n")


@pytest.fixture(scope="module")
def check(programs: Path) -> Iterator[Checker]:
    checker = Checker(programs / "json_check")
    with checker.process as process:
        yield checker
        assert process.stdin
        process.stdin.close()
        assert process.wait(20) == 0


GOOD = [
    "0", "-0", "12", "-0.5", "1e9", "1E+9", "0e-0", "1.25e-300", "1e999", "true", "false", "null", '""',
    "[]", "{}", " [ ] ",
    '{"a":1,"a":2}', '[1,[2,{"b":[]}],null]', "\t{\r\"x\" :\t1 , \"y\":[ ] }\r",
    '"\\u00e9\\ud800\\"\\\\\\/\\b\\f\\n\\r\\t"',
    '"é\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff\x7f"', "[" * DEPTH_MAX + "]" * DEPTH_MAX,
    '{"a":' * DEPTH_MAX + "1" + "}" * DEPTH_MAX, "9" * NUMBER_MAX, '"' + "x" * 65_534 + '"',
]  # fmt: skip

BAD = [
    "", " ", "+1", "01", "-", "-a", "1.", ".5", "1e", "1e+", "0x1", "1_0", "--1", "1 2", "tru", "True",
    "nul", "nulll", "undefined",
    "NaN", "Infinity", "-Infinity", "'a'", '"', '"\\', '"\\"', '"\\x41"', '"\\u12"', '"\\u123g"',
    '"\\u 123"', '"\t"', '"\0"', "\0",
    '"\x1f"', "[", "]", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1}", "{", "}", "{1:2}", '{"a"}', '{"a":}',
    '{"a":1,}', '{"a" 1}',
    '{"a":1]', "{,}", '{"a":1 "b":2}', "[]]", "{}{}", "/**/1", "1//", "\ufeff1", "\xa01", "\v1", "\f1",
    "[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1), '[{"a":' * 33, "1" * (NUMBER_MAX + 1), "1.5\n", "\n1",
    "[1,\n2]", '"\n"',
]  # fmt: skip

NOT_UTF8 = [
    b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc3", b"\xc3(", b"\xe0\x80\x80", b"\xe0\x9f\xbf",
    b"\xed\xa0\x80", b"\xed\xbf\xbf",
    b"\xe2\x82", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff",
    b"\xf0\x90\x80",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD, ids=lambda text: text[:20])
def test_json(check: Checker, text: str) -> None:
    assert check(text) == "ok"
    json.loads(text)


@pytest.mark.parametrize("text", BAD, ids=lambda text: ascii(text[:20]))
def test_not_json(check: Checker, text: str) -> None:
    assert check(text) != "ok"


@pytest.mark.parametrize("raw", NOT_UTF8, ids=bytes.hex)
def test_not_utf8(check: Checker, raw: bytes) -> None:
    assert check(b'"' + raw + b'"') == "the text is not UTF-8"
    assert check(b'{"' + raw) == "the text is not UTF-8"
    assert check(raw) != "ok"


def test_what_is_wrong_is_said(check: Checker) -> None:
    assert check("[1,\n2]") == "there is a line feed in it"
    assert check("[" * 65) == "the value is nested more than 64 deep"
    assert check("1 1") == "something follows the value"
    assert check("[1") == "the value is not complete"
    assert check("") == "there is no value"


def is_acceptable(text: str) -> bool:
    """Python's judgement, where it is as strict."""

    def refuse(word: str) -> object:
        raise ValueError(word)

    try:
        json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return "\n" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@SETTINGS
@given(value=VALUES, ascii_only=st.booleans(), separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "\r: ")]))
def test_all_that_python_writes_is_json(
    check: Checker, value: object, ascii_only: bool, separators: tuple[str, str]
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return  # not a text that has bytes
    assert check(text) == "ok"


@SETTINGS
@given(
    value=VALUES,
    place=st.floats(0, 1),
    length=st.integers(0, 3),
    inserted=st.text('[]{}",:\\eE+-.0189tfnu aé\n\0', max_size=3),
)
def test_what_is_spoilt_is_judged_as_by_python(
    check: Checker, value: object, place: float, length: int, inserted: str
) -> None:
    text = json.dumps(value)
    at = int(place * len(text))
    text = text[:at] + inserted + text[at + length :]
    assert (check(text) == "ok") == is_acceptable(text), text


@SETTINGS
@given(text=st.text('[]{}",:\\eE+-.019tfnrulas \t', max_size=12))
def test_what_looks_like_json_is_judged_as_by_python(check: Checker, text: str) -> None:
    assert (check(text) == "ok") == is_acceptable(text), text


@SETTINGS
@given(raw=st.binary(max_size=60))
def test_bytes_never_pass_that_python_refuses(check: Checker, raw: bytes) -> None:
    for text in (raw, b'"' + raw + b'"'):
        if check(text) == "ok":
            json.loads(text.decode())
