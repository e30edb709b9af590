"""How the program tells its failures to a person, and how quickly it starts."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
import trio

from trio_sandbox.cli import program as cli
from trio_sandbox.errors import HostNotReadyError, SandboxNotRunningError


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """The command `setup` raises what is put in this list, or returns 7."""
    raised: list[BaseException] = []

    @click.command()
    def command() -> int:
        if raised:
            raise raised[0]
        return 7

    monkeypatch.setitem(cli.COMMANDS, "setup", (f"{__name__}:_command", "test"))
    monkeypatch.setattr(sys.modules[__name__], "_command", command, raising=False)
    return raised


READY = HostNotReadyError("kernel", "no guest kernel has been fetched")


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (None, 7, []),
        (READY, 1, [str(READY)]),
        (ExceptionGroup("", [READY, ExceptionGroup("", [SandboxNotRunningError("a"), READY])]), 1, [
            str(READY), "sandbox 'a' is not running"]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (BaseExceptionGroup("", [KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt()])]), 130,
            ["interrupted"]),
        (PermissionError(13, "Permission denied", "/somewhere"), 1, ["/somewhere: Permission denied"]),
        (click.UsageError("no such option"), 2, None),
        (click.Abort(), 130, ["interrupted"]),
    ],
)  # fmt: skip
def test_failures_are_sentences(
    error: BaseException | None,
    status: int,
    told: list[str] | None,
    failing: list[BaseException],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if error is not None:
        failing.append(error)
    assert cli.run(["setup"]) == status
    if told is not None:
        # After ^C the terminal's cursor stands behind it: an empty line comes first.
        lines = [line for line in capsys.readouterr().err.splitlines() if line]
        assert lines == [f"trio-sandbox: {sentence}" for sentence in told]


def test_a_bug_names_the_way_to_its_traceback(failing: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    failing.append(KeyError("x"))
    assert cli.run(["setup"]) == 1
    told = capsys.readouterr().err
    assert "KeyError: 'x'" in told
    assert "--debug" in told
    assert "Traceback" not in told


def test_debug_raises(failing: list[BaseException]) -> None:
    failing.append(KeyError("x"))
    with pytest.RaisesGroup(KeyError, allow_unwrapped=True):
        cli.run(["--debug", "setup"])


def test_debug_after_the_command_is_not_ours(failing: list[BaseException]) -> None:
    failing.append(KeyError("x"))
    assert cli.run(["setup", "--debug"]) == 2


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["nonsense"]) == 2
    assert "No such command" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["setup", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from trio_sandbox.cli.program import run; status = run(sys.argv[1:]); "
        "heavy = {'trio', 'anyio', 'rich', 'cattrs', 'msgpack', 'oras', 'asyncio'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: trio-sandbox" in done.stdout


def test_help_lists_every_command() -> None:
    done = subprocess.run([sys.executable, "-m", "trio_sandbox", "--help"], capture_output=True, text=True, check=True)
    for name in cli.COMMANDS:
        assert f"\n  {name} " in done.stdout


def test_interrupt_inside_trio_is_one_word(failing: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    async def interrupted() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise KeyboardInterrupt

    with pytest.raises(BaseException) as caught:  # noqa: PT011  bare or in a group, by Trio's version
        trio.run(interrupted)
    failing.append(caught.value)
    assert cli.run(["setup"]) == 130
    assert capsys.readouterr().err.strip() == "trio-sandbox: interrupted"
