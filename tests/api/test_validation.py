"""What is wrong is named, all of it at once, before anything is created."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from trio_sandbox import Home, InvalidConfigError, Sandbox, SandboxConfig, UnsupportedError
from trio_sandbox.process.order import Order
from trio_sandbox.process.spawn import ForkServer
from trio_sandbox.state.rows import Tenure

pytestmark = pytest.mark.anyio

WRONG: dict[str, Any] = {
    "image": 5,
    "cpus": "two",
    "memory": 1,
    "workdir": "relative",
    "env": {"A=B": "c"},
    "labels": {"": "x"},
    "ephemeral": 1,
    "max_duration": 0,
    "idle_timeout": "soon",
    "detached": "yes",
    "replace": 1,
    "replace_with_timeout": -1,
    "home": "/tmp",
    "colour": "red",
}


@pytest.fixture
def untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A data folder that is not there, and no process that could make one."""

    def forbidden(self: ForkServer, payload: str) -> None:
        raise AssertionError("a process was asked for")

    monkeypatch.setattr(ForkServer, "spawn", forbidden)
    home = Home(tmp_path / "home")
    monkeypatch.setenv("TRIO_SANDBOX_HOME", str(home.root))
    return home


async def test_every_problem_is_named_at_once_and_nothing_is_created(untouched: Home) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        await Sandbox.create("-bad", **WRONG)
    problems = caught.value.problems
    assert len(problems) == len(WRONG) + 1
    for word in ("name", *(f"{key}: " for key in WRONG if key != "colour"), "unknown option 'colour'"):
        assert any(problem.startswith(word) for problem in problems), word
    assert not untouched.root.exists()


async def test_with_progress_it_is_named_without_awaiting(untouched: Home) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        Sandbox.create_with_progress("-bad", **WRONG)
    assert len(caught.value.problems) == len(WRONG) + 1
    with pytest.raises(UnsupportedError, match="volumes="):
        Sandbox.create_with_progress("later", image="local/base", volumes={"/data": "folder"})
    assert not untouched.root.exists()


async def test_a_config_takes_nothing_beside_it(untouched: Home) -> None:
    config = SandboxConfig(name="one", image="local/base")
    with pytest.raises(InvalidConfigError) as caught:
        await Sandbox.create(config, cpus=2, detached=3)  # type: ignore[arg-type]
    assert len(caught.value.problems) == 2
    assert not untouched.root.exists()


@pytest.mark.parametrize("seconds", [0, 0.0, 2, 2.5])
def test_a_grace_may_be_nothing(seconds: float) -> None:
    Sandbox.create_with_progress("fine", image="local/base", replace_with_timeout=seconds)


@pytest.mark.parametrize("seconds", [-0.5, float("nan"), float("inf"), True, "1"])
def test_a_grace_that_is_none(seconds: Any) -> None:
    with pytest.raises(InvalidConfigError, match="replace_with_timeout"):
        Sandbox.create_with_progress("wrong", image="local/base", replace_with_timeout=seconds)


def test_a_config_checks_itself() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        SandboxConfig(name="", image="local/base", cpus=0, env={"": "x"}, pull_policy="sometimes")
    assert len(caught.value.problems) == 4


def test_a_config_is_not_changed_by_what_it_was_made_of() -> None:
    env = {"A": "b"}
    config = SandboxConfig(name="one", image="local/base", env=env)
    env["A"] = "c"
    assert config.env == {"A": "b"}


def test_paths_mean_what_they_mean_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that makes the sandbox stands in another folder, and so does the one that starts it again."""
    monkeypatch.chdir(tmp_path)
    here = os.getcwd()
    for image in ("./layout:tag", Path("layout:tag")):
        config = SandboxConfig(name="one", image=image, listen="one.sock")
        order = Order.from_json(Order(config, Home(Path("home")), Tenure.NEW, detached=False).to_json())
        assert os.path.normpath(order.config.root.reference) == f"{here}/layout:tag"
        assert order.config.listen == f"{here}/one.sock"
        assert order.home.root == Path(here, "home")
    for image in ("local/base", "python:3.12", "~/layout"):
        config = SandboxConfig(name="one", image=image)
        assert Order.from_json(Order(config, Home(tmp_path), Tenure.NEW, detached=True).to_json()).config == config


def test_a_token_reaches_the_process_and_stays_out_of_the_json_that_is_kept() -> None:
    from trio_sandbox import WebSocketAddress

    config = SandboxConfig(name="one", image="local/base", websocket=WebSocketAddress(token="s" * 20))
    assert "ssss" not in config.to_json()
    order = Order(config, Home(Path("/home")), Tenure.NEW, detached=False)
    assert Order.from_json(order.to_json()).config == config
