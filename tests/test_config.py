"""Configurations: everything wrong is named at once, before anything is created."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.config import HOSTNAME_LIMIT, PLANNED, LogLevel, SandboxConfig
from trio_sandbox.errors import InvalidConfigError, UnsupportedError
from trio_sandbox.labels import IMAGE_LABELS_LIMIT, usable_labels


def build(name: Any = "worker", **options: Any) -> SandboxConfig:
    return SandboxConfig.from_options(name, {"image": "local/base", **options})


def test_defaults() -> None:
    config = build()
    assert (config.cpus, config.memory, config.shell, config.pull_policy) == (1, 512, "/bin/sh", "if-missing")
    assert config.effective_hostname == "worker"


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        build("-bad", image="", cpus=0, memory="512", workdir="rel", env={"A=B": "x"}, colour="red")
    assert len(caught.value.problems) == 7
    for word in ("name", "image", "cpus", "memory", "workdir", "env", "'colour'"):
        assert any(word in problem for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image": None}, "image: required"),
        ({"image": 5}, "must be str, os.PathLike or ImageSource"),
        ({"cpus": True}, "cpus: must be int, not bool"),
        ({"cpus": 1.0}, "cpus: must be int, not float"),
        ({"memory": 1}, "not within 128"),
        ({"user": ""}, "user: must be 1 to"),
        ({"hostname": "a b"}, "not a host name"),
        ({"hostname": "h" * 64}, "hostname"),
        ({"env": ["A=1"]}, "env: must be a mapping"),
        ({"env": {"A": 1}}, "names and values must be str"),
        ({"env": {"A": "\0"}}, "NUL"),
        ({"shell": "sh"}, "not an absolute path"),
        ({"boot_timeout": 0}, "not above 0"),
        ({"boot_timeout": float("nan")}, "not above 0"),
        ({"admission_timeout": -1}, "admission_timeout: -1 is not above 0"),
        ({"pull_policy": "sometimes"}, "not one of"),
        ({"log_level": "loud"}, "log_level: 'loud' is not one of trace, debug, info, warn, error"),
        ({"log_level": 10}, "log_level: must be str, not int"),
        ({"quiet_logs": "yes"}, "quiet_logs: must be bool, not str"),
    ],
)
def test_one_problem(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfigError, match=words):
        build(**options)


def test_an_image_has_labels_that_no_sandbox_can_have() -> None:
    labels = {
        "good": "1",
        "org.opencontainers.image.title": "x",
        "": "x",
        "a b": "x",
        "long": "x" * 1025,
        "s": "\ud800",
    }
    assert usable_labels(labels) == {"good": "1", "org.opencontainers.image.title": "x"}
    assert len(usable_labels({f"l{number}": "" for number in range(5000)})) == IMAGE_LABELS_LIMIT
    with pytest.raises(InvalidConfigError, match="labels: the value of 's' cannot be written as UTF-8"):
        build(labels={"s": "\ud800"})


def test_what_is_logged_round_trips() -> None:
    config = build(log_level="debug", quiet_logs=True)
    assert config.log_level is LogLevel.DEBUG and config == build(log_level=LogLevel.DEBUG, quiet_logs=True)
    assert SandboxConfig.from_json(config.to_json()) == config
    assert (build().log_level, build().quiet_logs) == (None, False)


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "ü", "a" * 129, 7, None, "a\n"])
def test_bad_names(name: Any) -> None:
    with pytest.raises(InvalidConfigError, match="name"):
        build(name)


@pytest.mark.parametrize("option", sorted(PLANNED))
def test_a_planned_option_is_refused_by_name_and_never_ignored(option: str) -> None:
    with pytest.raises(UnsupportedError, match=option):
        build(**{option: "something"})
    build(**{option: None})


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True))
def test_every_name_gives_a_host_name(name: str) -> None:
    hostname = build(name).effective_hostname
    assert 1 <= len(hostname) <= HOSTNAME_LIMIT
    assert hostname[0].isalnum() and hostname[-1].isalnum()


def test_a_path_is_an_image() -> None:
    assert build(image=Path("/x")).image == "/x"
    assert build(image=Path("layout")).image == "./layout"  # and not an image of a registry
    assert build(image=Path("local/base")).image == "./local/base"
