"""registries.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.errors import InvalidConfigError
from trio_sandbox.home import Home
from trio_sandbox.image.registry.endpoint import endpoints
from trio_sandbox.image.registry.reference import RegistryReference
from trio_sandbox.image.registry.settings import MAX_SETTINGS_BYTES, SETTINGS_FILE, RegistrySettings, Settings


def problems_of(text: str, folder: Path) -> list[str]:
    with pytest.raises(InvalidConfigError) as caught:
        Settings.from_document(tomllib.loads(text), folder)
    return list(caught.value.problems)


def test_without_a_file(tmp_path: Path) -> None:
    assert Settings.load(Home(tmp_path)).of("ghcr.io") == RegistrySettings()


def test_what_a_file_says(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    (tmp_path / SETTINGS_FILE).write_text(
        'retries = 3\nread_timeout = 7\n[registry."a.test:1"]\ninsecure = true\nretries = 1\n'
        '[registry."b.test"]\nca = "ca.pem"\nmirrors = ["a.test:1/x/y", "c.test"]\nconnect_timeout = 0.5\n'
    )
    settings = Settings.load(Home(tmp_path))
    assert settings.of("a.test:1") == RegistrySettings(insecure=True, retries=1, read_timeout=7)
    assert settings.of("c.test") == RegistrySettings(retries=3, read_timeout=7)
    assert settings.of("b.test").ca == tmp_path / "ca.pem"
    assert [(found.host, found.repository, found.is_mirror) for found in endpoints(
        RegistryReference.parse("b.test/r/s"), settings
    )] == [("a.test:1", "x/y/r/s", True), ("c.test", "r/s", True), ("b.test", "r/s", False)]  # fmt: skip


def test_docker_hub_answers_elsewhere() -> None:
    found = endpoints(RegistryReference.parse("python"), Settings())
    assert [(one.host, one.repository) for one in found] == [("registry-1.docker.io", "library/python")]


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    text = """
        retries = -1
        insecure = true
        [registry."a b"]
        [registry."x.test"]
        insecure = 1
        ca = "none.pem"
        mirrors = ["http://y", "ok.test", "y/../z"]
        connect_timeout = 0
        read_timeout = true
        retries = 1.5
        other = 1
    """
    found = problems_of(text, tmp_path)
    for number, part in enumerate(
        [
            "retries: must be 0 to 100",
            "insecure: is not known",
            "'a b': is no HOST",
            "insecure: must be true or false",
            "ca: there is no file",
            "mirrors: no HOST[:PORT][/PATH]: 'http://y', 'y/../z'",
            "connect_timeout: must be a number of seconds",
            "read_timeout: must be",
            "retries: must be 0",
            "other: is not known",
        ]
    ):
        assert part in found[number]
    assert len(found) == 10


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[registry."index.docker.io"]', "the name of Docker Hub is 'docker.io'"),
        ("registry = 1", "must be tables"),
        ('[registry]\n"a.test" = 1', "must be a table"),
        ('[registry."a.test"]\nca = ""', "must be the path of a file"),
        ('[registry."a.test"]\nmirrors = "b"', "must be a list"),
        ('[registry."a.test"]\nmirrors = [1]', "must be a list"),
        ('[registry."a.test"]\ninsecure = true\nca = "registries.toml"', "says nothing together"),
    ],
)
def test_single_faults(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / SETTINGS_FILE).write_text("")
    (found,) = problems_of(text, tmp_path)
    assert words in found


@pytest.mark.parametrize("data", [b"[", b"\xff", b"#" * (MAX_SETTINGS_BYTES + 1), b"a=" + b"[" * 5000])
def test_a_file_that_is_no_toml(tmp_path: Path, data: bytes) -> None:
    (tmp_path / SETTINGS_FILE).write_bytes(data)
    with pytest.raises(InvalidConfigError, match=SETTINGS_FILE):
        Settings.load(Home(tmp_path))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).mkdir()
    with pytest.raises(InvalidConfigError, match=SETTINGS_FILE):
        Settings.load(Home(tmp_path))


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.text(max_size=8))
TABLES = st.dictionaries(st.sampled_from([field.name for field in attrs.fields(RegistrySettings)]), VALUES)


@given(TABLES, st.none() | st.dictionaries(st.sampled_from(["a.b", "a b"]), TABLES))
def test_any_document_is_read_or_refused(general: dict[str, object], registries: object) -> None:
    try:
        settings = Settings.from_document({**general, "registry": registries}, Path("/nonexistent"))
    except InvalidConfigError:
        return
    found = settings.of("a.b")
    assert 0 <= found.retries <= 100 and 0 < found.read_timeout <= 3600 and found.ca is None
