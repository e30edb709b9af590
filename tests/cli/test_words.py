"""Where our command line ends and the command's begins."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from trio_sandbox.cli.words import ProgramCommand


@click.command(cls=ProgramCommand)
@click.option("-i", is_flag=True)
@click.option("-t", "--tty", is_flag=True)
@click.option("-e", "--env", multiple=True)
@click.option("--timeout", type=float)
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def command(**given: object) -> dict[str, object]:
    return given


def parsed(*words: str) -> dict[str, object]:
    result = CliRunner().invoke(command, words, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    assert isinstance(result.return_value, dict)
    return {key: value for key, value in result.return_value.items() if value not in (None, False, ())}


@pytest.mark.parametrize(
    ("words", "options", "program"),
    [
        ("box ls -l", {}, ("ls", "-l")),
        ("-it box ls -it", {"i": True, "tty": True}, ("ls", "-it")),
        ("box -it -- ls --tty", {"i": True, "tty": True}, ("ls", "--tty")),
        ("-e A=1 box --env B=2 --timeout=3 x -e C=3", {"env": ("A=1", "B=2"), "timeout": 3.0}, ("x", "-e", "C=3")),
        ("-te A=1 box -eB=2 --timeout 3 x", {"tty": True, "env": ("A=1", "B=2"), "timeout": 3.0}, ("x",)),
        ("-- box x --", {}, ("x", "--")),
        ("box -- -x -- y", {}, ("-x", "--", "y")),
        ("box grep -- -x", {}, ("grep", "--", "-x")),
        ("box -", {}, ("-",)),
        ("box", {}, ()),
    ],
)
def test_where_it_is_parted(words: str, options: dict[str, object], program: tuple[str, ...]) -> None:
    expected = {"name": "box", **options, **({"command": program} if program else {})}
    assert parsed(*words.split()) == expected


@pytest.mark.parametrize("words", ["", "--nonsense box x", "box --nonsense x", "box --timeout", "-e"])
def test_what_is_wrong_is_told(words: str) -> None:
    with pytest.raises(click.UsageError):
        parsed(*words.split())
