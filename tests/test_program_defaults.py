"""What programs get where nobody says: the order of call, sandbox, image and our own."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from trio_sandbox import ExecFailedError
from trio_sandbox.client.options import default_command
from trio_sandbox.config import AGENT_PATH, DEFAULT_PATH, SandboxConfig
from trio_sandbox.image.oci import ImageConfig
from trio_sandbox.program_defaults import ProgramDefaults, signal_number

IMAGE = ImageConfig(
    env=("PATH=/image/bin", "A=image", "B=image", "EMPTY=", "nonsense"),
    working_dir="srv",
    user="www",
    entrypoint=("/entry", "-x"),
    cmd=("one", "two"),
    stop_signal="SIGQUIT",
)


def defaults(image: ImageConfig = IMAGE, **options: Any) -> ProgramDefaults:
    return ProgramDefaults.of(SandboxConfig.from_options("worker", {"image": "local/base", **options}), image)


def test_an_image_without_a_word() -> None:
    found = defaults(ImageConfig())
    assert found == ProgramDefaults(
        env={"PATH": f"{DEFAULT_PATH}:{AGENT_PATH}"}, workdir="/", user="", entrypoint=(), cmd=(), stop_signal=15
    )


def test_what_the_image_says() -> None:
    found = defaults()
    assert found.env == {"PATH": f"/image/bin:{AGENT_PATH}", "A": "image", "B": "image", "EMPTY": ""}
    assert (found.workdir, found.user) == ("/srv", "www")
    assert (found.entrypoint, found.cmd, found.stop_signal) == (("/entry", "-x"), ("one", "two"), signal.SIGQUIT)


def test_the_options_of_the_sandbox_count_more() -> None:
    found = defaults(env={"A": "own", "PATH": "/own"}, workdir="/w", user="root", scripts={"hi": "true"})
    assert found.env == {"PATH": f"/.msb/scripts:/own:{AGENT_PATH}", "A": "own", "B": "image", "EMPTY": ""}
    assert (found.workdir, found.user) == ("/w", "root")


@pytest.mark.parametrize("own", [[], ["sh", "-c", "true"]])
def test_an_entry_point_of_its_own_drops_the_command_too(own: list[str]) -> None:
    found = defaults(entrypoint=own)
    assert (found.entrypoint, found.cmd) == (tuple(own), ())


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "args", "words"),
    [
        (("e", "-x"), ("c",), None, ["e", "-x", "c"]),
        (("e", "-x"), ("c",), ["a", "b"], ["e", "-x", "a", "b"]),
        (("e",), ("c",), [], ["e"]),
        ((), ("c", "d"), None, ["c", "d"]),
        ((), ("c",), ["a", "b"], ["a", "b"]),
        (("e",), (), None, ["e"]),
    ],
)
def test_what_exec_default_runs(
    entrypoint: tuple[str, ...], cmd: tuple[str, ...], args: list[str] | None, words: list[str]
) -> None:
    program, rest = default_command(entrypoint, cmd, args)
    assert [program, *rest] == words


@pytest.mark.parametrize("args", [None, []])
def test_an_image_that_names_nothing(args: list[str] | None) -> None:
    with pytest.raises(ExecFailedError, match="names no command") as caught:
        default_command((), () if args is None else ("c",), args)
    assert caught.value.kind == "bad_args"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("quit", 3),
        ("SIGKILL", 9),
        ("2", 2),
        ("SIGRTMIN+3", 37),
        ("RTMAX-1", 63),
        ("SIGRTMIN", 34),
        ("", 15),
        ("0", 15),
        ("65", 15),
        ("999", 15),
        ("SIGRTMIN+40", 15),
        ("SIGRTMIN-1", 15),
        ("SIGNOTHING", 15),
        ("SIG_BLOCK", 15),
        ("²", 15),
        ("SIGTERM; reboot", 15),
    ],
)
def test_stop_signals(text: str, number: int) -> None:
    assert signal_number(text) == number
