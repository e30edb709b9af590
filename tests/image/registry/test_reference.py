"""Names of images, as Docker reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.errors import InvalidConfigError
from trio_sandbox.image.registry.reference import RegistryReference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.12", "docker.io/library/python:3.12"),
        (f"python@{DIGEST}", f"docker.io/library/python@{DIGEST}"),
        (f"python:3.12@{DIGEST}", f"docker.io/library/python:3.12@{DIGEST}"),
        ("ann/app", "docker.io/ann/app:latest"),
        ("docker.io/python", "docker.io/library/python:latest"),
        ("index.docker.io/ann/app:1", "docker.io/ann/app:1"),
        ("registry-1.docker.io/python", "docker.io/library/python:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("host:5000/a/b/c:x", "host:5000/a/b/c:x"),
        ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
        ("Host/app", "Host/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("127.0.0.1:5000/app:V_1.0-x", "127.0.0.1:5000/app:V_1.0-x"),
        ("a__b/c---d/e.f_g", "docker.io/a__b/c---d/e.f_g:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
    ],
)
def test_whole_names(text: str, whole: str) -> None:
    reference = RegistryReference.parse(text)
    assert str(reference) == whole
    assert RegistryReference.parse(whole) == reference


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "@", "/", ":tag", "Python", "a//b", "a/", "/a", "a/-b", "a..b", "a___b", "a_", "a:", "a:.b", "a:-b",
        "a:" + "x" * 129, "a@", "a@sha256:", "a@sha256:" + "0" * 63, "a@sha256:" + "A" * 64, "a@sha512:" + "0" * 128,
        f"a@{DIGEST}@{DIGEST}", f"a@{DIGEST}:x", "host:0/a", "host:99999/a", "host:/a", "ho st/a", "-host.x/a",
        "host-.x/a", "host..x/a", "a b", "a\n", "a\0", "é", "a/é", "٣/a", "user@host/a", "https://host/a", "host.x/",
        "../a.b", "a.b/../c", "0" * 64, "x" * 256, "x" * 2000, "[::1/a", "host:5000/a:b:c", "docker.io", "a.b/c?d",
    ],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    if text == "docker.io":
        assert str(RegistryReference.parse(text)) == "docker.io/library/docker.io:latest"
        return
    with pytest.raises(InvalidConfigError) as caught:
        RegistryReference.parse(text)
    assert len(caught.value.problems) == 1
    assert len(str(caught.value)) < 600


WORD = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}", fullmatch=True)
HOSTS = st.one_of(
    st.just(""),
    st.just("localhost/"),
    st.from_regex(r"[a-z0-9]{1,5}(\.[a-z0-9]{1,5}){1,2}(:[1-9][0-9]{0,3})?/", fullmatch=True),
)


@given(
    host=HOSTS,
    path=st.lists(WORD, min_size=1, max_size=4),
    tag=st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    digest=st.none() | st.just(DIGEST),
)
def test_what_is_a_name_by_the_grammar(host: str, path: list[str], tag: str | None, digest: str | None) -> None:
    if not host and len(path) > 1 and "." in path[0]:
        host = "docker.io/"
    text = host + "/".join(path) + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    reference = RegistryReference.parse(text)
    assert RegistryReference.parse(str(reference)) == reference
    assert (reference.tag, reference.digest) == (tag or (None if digest else "latest"), digest)
    if host:
        assert (reference.registry, reference.repository) == (host[:-1], "/".join(path))
    assert reference.name == f"{reference.registry}/{reference.repository}"
    assert reference.version == (digest or reference.tag)


@given(st.text(max_size=80) | st.text(alphabet="ab.:/@-_[]0%?# \n", max_size=40))
def test_anything_is_a_name_or_refused(text: str) -> None:
    try:
        reference = RegistryReference.parse(text)
    except InvalidConfigError:
        return
    assert RegistryReference.parse(str(reference)) == reference
    # Nothing that could mean another place in an address.
    assert not set(reference.repository) & set(" @?#%\\:[]\n") and ".." not in reference.repository
    assert not set(reference.registry) & set(" @?#%\\/\n")
