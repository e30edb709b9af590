"""How the program tells its failures to a person, and how quickly it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
import trio

from trio_sandbox.cli import program as cli
from trio_sandbox.errors import HostNotReadyError, SandboxNotRunningError
from trio_sandbox.home import Home
from trio_sandbox.lifecycle import State
from trio_sandbox.state.places import store_of
from trio_sandbox.state.rows import SandboxRow


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
            str(READY), "sandbox 'a' is not running; `trio-sandbox start a` starts it"]),
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


@pytest.mark.parametrize(
    ("word", "told"), [("nonsense", "No such command 'nonsense'.\n"), ("creat", "Did you mean 'create'?\n")]
)
def test_an_unknown_command(word: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([word]) == 2
    assert capsys.readouterr().err.endswith(told)


def test_run_in_the_background_is_another_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["run", "-d", "local/base", "true"]) == 2
    assert "`trio-sandbox create` makes one that stays" in capsys.readouterr().err


def test_json_is_there_wherever_a_command_tells_facts() -> None:
    """Not where names alone are printed, one a line, or what a program prints."""
    told = [name for section in ("Images", "What they are and do") for name in cli.SECTIONS[section]]
    for name in {*told, "wait", "fork", "doctor", "sessions", "events"} - {"rmi", "save", "image"}:
        command = cli.program.get_command(click.Context(cli.program), name)
        assert command is not None and any("--json" in param.opts for param in command.params), name


def test_a_closed_pipe_is_what_sigpipe_would_be() -> None:
    code = "import sys; from trio_sandbox.cli.program import run; sys.exit(run(['completion', 'fish']))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


HEAVY = "{'trio', 'anyio', 'rich', 'cattrs', 'msgpack', 'oras', 'asyncio'} & set(sys.modules)"
"""An expression: what was imported of what is heavy."""


def run_watching_imports(script: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a script that knows `run`; it fails when something heavy was imported."""
    code = f"import sys; from trio_sandbox.cli.program import run\n{script}\nsys.exit(str({HEAVY} or ''))"
    environment = {**os.environ, "TRIO_SANDBOX_HOME": str(home)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    done = run_watching_imports(
        "from trio_sandbox.cli.program import ALIASES, COMMANDS\n"
        "for words in ([], *([name] for name in (*COMMANDS, *ALIASES))): assert run([*words, '--help']) == 0",
        tmp_path,
    )
    assert done.stderr.strip() == ""
    assert done.stdout.count("Usage: trio-sandbox") == 1 + len(cli.COMMANDS) + len(cli.ALIASES)


@pytest.mark.parametrize("words", [["ls"], ["ps", "-a", "--json"], ["inspect", "known"], ["completion", "zsh"]])
def test_what_the_store_knows_needs_no_event_loop(words: list[str], tmp_path: Path) -> None:
    store_of(Home(tmp_path)).add(SandboxRow("known", '{"name": "known", "image": "i"}', State.STOPPED, 1, 1))
    done = run_watching_imports(f"assert run({words!r}) == 0", tmp_path)
    assert done.stderr.strip() == ""


def test_a_list_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    store_of(Home(tmp_path)).add(SandboxRow("known", '{"name": "known", "image": "i"}', State.STOPPED, 1, 1))
    dear = "{'hashlib', 'tempfile', 'shutil', 'secrets'} & set(sys.modules)"
    done = run_watching_imports(f"assert run(['ls', '-a']) == 0; assert not {dear}, {dear}", tmp_path)
    assert done.stderr.strip() == ""


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
