"""The program `trio-sandbox`: its commands by name, and how their failures are told to a person.

This is the one place that turns exceptions and exception groups into sentences. A command is a click command that
returns its exit status or None; what it raises ends here. Its module is imported only when it is called.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from trio_sandbox.errors import SandboxError

COMMANDS = {
    "setup": ("trio_sandbox.cli.setup:setup", "Make this machine ready to run sandboxes."),
    "doctor": ("trio_sandbox.cli.doctor:doctor", "Show what is ready, what is not, and how to mend it."),
    "run": ("trio_sandbox.cli.run:run", "Run a command in a new sandbox."),
}
"""By name: where the click command is, and its line in the help."""

INTERRUPTED = 130
FAILED = 1
FAILED_ITSELF = {"run": 125}
"""Commands whose exit status is another program's tell their own failure by a status of their own."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the whole traceback of a failure.")
@click.version_option(package_name="trio-sandbox")
def program(debug: bool) -> None:
    """MicroVM sandboxes for untrusted commands, owned by a Trio nursery."""


def run(arguments: Sequence[str]) -> int:
    """Run the program and return its exit status.

    The command's own, or 1 after a failure (125 of `run`), 2 for wrong usage, 130 when interrupted. With --debug
    failures are raised.
    """
    at = _command_at(arguments)
    debug = "--debug" in arguments[:at]
    failed = FAILED_ITSELF.get(arguments[at] if at < len(arguments) else "", FAILED)
    told: list[str] = []
    status = 0
    try:
        status = _invoke(list(arguments))
    except* KeyboardInterrupt:
        status = INTERRUPTED
        told.append("interrupted")
    except* BrokenPipeError:
        status = FAILED
        # Whoever read our output is gone; Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except* Exception as group:
        if debug:
            raise
        status = failed
        told += sentences(group)
    for sentence in dict.fromkeys(told):
        click.echo(f"trio-sandbox: {sentence}", err=True)
    return status


def _command_at(arguments: Sequence[str]) -> int:
    """Where the command's name is: what comes after it is not for us to read."""
    return next((index for index, word in enumerate(arguments) if not word.startswith("-")), len(arguments))


def _invoke(arguments: list[str]) -> int:
    try:
        status = program.main(arguments, prog_name="trio-sandbox", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    return status if isinstance(status, int) else 0


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group of groups, in order; a lone one alone."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def sentences(error: BaseException) -> list[str]:
    """What to tell a person: our own errors speak for themselves, a bug says how to see more of it."""
    told = []
    for leaf in leaves(error):
        if isinstance(leaf, SandboxError):
            told.append(str(leaf))
        elif isinstance(leaf, OSError) and leaf.strerror:
            named = f"{leaf.filename}: " if leaf.filename else ""
            told.append(f"{named}{leaf.strerror}")
        else:
            told.append(f"{type(leaf).__name__}: {leaf} (this is a bug; `trio-sandbox --debug …` shows where)")
    return told
