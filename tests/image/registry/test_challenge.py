"""What registries say of logging in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.registry.challenge import Challenge, parse_challenges, parse_token


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://auth.test/token",service="registry.test",scope="repository:a/b:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.test/token",
                        "service": "registry.test",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ('BEARER Realm = x , service="a\\"b" ', [("bearer", {"realm": "x", "service": 'a"b'})]),
        ('Basic realm="x", Bearer realm="y"', [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})]),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
        ('Bearer realm="never closed', [("bearer", {})]),
    ],
)
def test_challenges(header: str, challenges: list[tuple[str, dict[str, str]]]) -> None:
    found = parse_challenges(header)
    assert found[: len(challenges)] == [Challenge(scheme, parameters) for scheme, parameters in challenges]


@given(st.text(max_size=100) | st.text(alphabet='aB=", \\\t', max_size=60))
def test_any_header(header: str) -> None:
    for challenge in parse_challenges(header):
        assert challenge.scheme


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(alphabet='ab",\\ =', max_size=8)))
def test_what_is_quoted_comes_back(parameters: dict[str, str]) -> None:
    def quoted(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"')

    header = "Bearer " + ", ".join(f'{name}="{quoted(value)}"' for name, value in parameters.items())
    assert parse_challenges(header) == [Challenge("bearer", parameters)]


def test_a_header_that_takes_long_is_no_problem() -> None:
    assert parse_challenges('Bearer a="' + "\\" * 100_000) != []
    assert parse_challenges("a, " * 100_000) != []
    assert parse_challenges(" " * 100_000) == []


@pytest.mark.parametrize(
    ("answer", "text", "life"),
    [
        ({"token": "a"}, "a", 60),
        ({"access_token": "a", "expires_in": 5}, "a", 5),
        ({"token": "a", "access_token": "b", "expires_in": 1.5}, "a", 1.5),
        ({"token": "a", "expires_in": True}, "a", 60),
        ({"token": "a", "expires_in": -1}, "a", 60),
        ({"token": "a", "expires_in": 1e300}, "a", 60),
        ({"token": "a", "expires_in": "300"}, "a", 60),
    ],
)
def test_tokens(answer: dict[str, object], text: str, life: float) -> None:
    token = parse_token(json.dumps(answer).encode())
    assert (token.text, token.life) == (text, life)
    assert "'a'" not in repr(token)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": ""}', b'{"token": "a\\r\\nHost: x"}', b'{"token": "\\u00e9"}',
     b'{"token": "' + b"a" * 70_000 + b'"}'],
)  # fmt: skip
def test_what_is_no_token(data: bytes) -> None:
    with pytest.raises(ImageFault) as caught:
        parse_token(data)
    assert len(str(caught.value)) < 200
