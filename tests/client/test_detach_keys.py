"""The detach keys: their grammar, and finding them however the typed bytes are cut."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.client.detach_keys import DetachMatcher, parse_detach_keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (None, b"\x1d"),
        ("", b""),
        ("ctrl-]", b"\x1d"),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("Ctrl-P,q", b"\x10q"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-^,ctrl-_", b"\x00\x1b\x1c\x1e\x1f"),
        ("~,.", b"~."),
        ("-", b"-"),
        ("ä", "ä".encode()),
    ],
)
def test_the_grammar(text: str | None, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize(
    ("text", "element"),
    [
        ("ctrl-", "'ctrl-'"),
        ("ctrl-p,,q", "''"),
        ("a,", "''"),
        (",", "''"),
        ("ctrl-1", "'ctrl-1'"),
        ("ctrl-pq", "'ctrl-pq'"),
        ("a,alt-x", "'alt-x'"),
        ("ctrl-ä", "'ctrl-ä'"),
        (" ctrl-p", "' ctrl-p'"),
        ("\udcff", "udcff"),
    ],
)
def test_what_is_wrong_is_named(text: str, element: str) -> None:
    with pytest.raises(ValueError, match="detach_keys") as caught:
        parse_detach_keys(text)
    assert element in str(caught.value)


@pytest.mark.parametrize("value", [b"ctrl-p", 5, ["a"]])
def test_only_text(value: Any) -> None:
    with pytest.raises(TypeError, match="detach_keys must be str"):
        parse_detach_keys(value)


def feed_all(keys: bytes, pieces: list[bytes]) -> tuple[bytes, bool, int]:
    """What was passed on in all, whether the keys came, and how many bytes are held back."""
    matcher, passed = DetachMatcher(keys), b""
    for piece in pieces:
        more, found = matcher.feed(piece)
        passed += more
        if found:
            return passed, True, matcher.held
    return passed, False, matcher.held


FEW = st.sampled_from([b"a", b"b", b"c"])  # few letters, so that beginnings of the keys come often
TYPED = st.lists(FEW, max_size=40).map(b"".join)
KEYS = st.lists(FEW, min_size=1, max_size=6).map(b"".join)


@given(keys=KEYS, typed=TYPED, cuts=st.lists(st.integers(0, 40)))
def test_any_cut_gives_the_same_and_it_is_what_a_search_finds(keys: bytes, typed: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(typed)) for cut in cuts), len(typed)]
    pieces = [typed[start:end] for start, end in itertools.pairwise(edges)]
    passed, found, held = feed_all(keys, pieces)
    assert (passed, found, held) == feed_all(keys, [typed])
    position = typed.find(keys)
    if position >= 0:
        assert (passed, found, held) == (typed[:position], True, 0)
    else:
        assert passed + keys[:held] == typed
        assert not found
        # Nothing longer than what might still become the keys is held back, and nothing shorter.
        assert held == max(size for size in range(len(keys)) if typed.endswith(keys[:size]))


def test_a_false_beginning_is_passed_on_with_the_byte_that_tells() -> None:
    matcher = DetachMatcher(b"\x10\x11")
    assert matcher.feed(b"ls\x10") == (b"ls", False)
    assert matcher.feed(b"x") == (b"\x10x", False)
    assert matcher.feed(b"\x10") == (b"", False)
    assert matcher.feed(b"\x11rest") == (b"", True)


def test_no_keys_find_nothing() -> None:
    assert DetachMatcher(b"").feed(b"\x1d") == (b"\x1d", False)
