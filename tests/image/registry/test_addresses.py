"""Addresses that registries give."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.image.registry.addresses import host_of, redirect_target, same_origin, token_server
from trio_sandbox.image.registry.failures import Refused

BASE = "https://a.test/v2/x/blobs/1"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://b.test/c?d=e", "https://b.test/c?d=e"),
        ("//b.test:8443/c", "https://b.test:8443/c"),
        ("/c", "https://a.test/c"),
        ("c", "https://a.test/v2/x/blobs/c"),
        ("https://[::1]:5000/", "https://[::1]:5000/"),
    ],
)
def test_redirects(location: str, target: str) -> None:
    assert redirect_target(BASE, location, 302) == target


@pytest.mark.parametrize(
    "location",
    [
        None, "", "http://b.test/", "ftp://b.test/", "file:///etc/passwd", "https://u@b.test/",
        "https://u:p@b.test/", "https://b.test:99999/", "https://b.test:x/", "https://b.test:0/", "https://[::1/",
        "https://b.test/\r\nx", "https://é.test/", "https://b.test/ x", "https://b.test/" + "x" * 20_000,
    ],
)  # fmt: skip
def test_what_is_not_followed(location: str | None) -> None:
    with pytest.raises(Refused) as caught:
        redirect_target(BASE, location, 302)
    assert caught.value.status == 302


PARTS = [
    "http",
    "https",
    ":",
    "//",
    "a.test",
    "b.test",
    "@",
    "u",
    ":80",
    ":443",
    ":x",
    "/",
    "?",
    "#",
    "[",
    "]",
    "é",
    "\n",
    "%",
]


@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join) | st.text(max_size=40))
def test_any_address(text: str) -> None:
    """It is refused, by requests at the latest, or goes to the host that we think it goes to."""
    readings: list[Callable[[], str]] = [
        lambda: redirect_target(BASE, text, 302),
        lambda: token_server(text, insecure=True),
    ]
    for given_by in readings:
        try:
            target = given_by()
            prepared = requests.Request("GET", target).prepare()
        except (Refused, requests.exceptions.InvalidURL):
            continue
        assert prepared.url is not None
        assert same_origin(prepared.url, target)
        assert host_of(target) in prepared.url.lower()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a/x", "https://a:443/y", True),
        ("http://A/", "http://a:80", True),
        ("http://a/", "https://a/", False),
        ("http://a/", "http://a:81/", False),
        ("http://a/", "http://b/", False),
        ("http://a/", "http://a@b/", False),
        ("x", "x", False),
    ],
)
def test_origins(one: str, other: str, same: bool) -> None:
    assert same_origin(one, other) is same


def test_token_servers() -> None:
    assert token_server("https://a.test/t?x=y#z", insecure=False) == "https://a.test/t?x=y"
    assert token_server("http://a.test/t", insecure=True) == "http://a.test/t"
    for realm in ("http://a.test/t", "", "a", "https://", "https://u@a.test/"):
        with pytest.raises(Refused):
            token_server(realm, insecure=False)
