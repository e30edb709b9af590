"""The program `trio-sandbox`: its commands by name, and how their failures are told to a person.

A command is a click command that returns its exit status or None; what it raises ends here. Its module is imported
only when it is called.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from trio_sandbox.cli.failures import nearest, sentences
from trio_sandbox.cli.output import tell

SECTIONS = {
    "This machine": {
        "setup": ("trio_sandbox.cli.setup:setup", "Make this machine ready to run sandboxes."),
        "doctor": ("trio_sandbox.cli.doctor:doctor", "Show what is ready, what is not, and how to mend it."),
        "completion": (
            "trio_sandbox.cli.completion:completion",
            "Print what makes a shell complete commands and names.",
        ),
    },
    "Sandboxes": {
        "run": ("trio_sandbox.cli.run:run", "Run a command in a new sandbox that ends with it."),
        "create": ("trio_sandbox.cli.create:create", "Create a sandbox and start it."),
        "fork": ("trio_sandbox.cli.fork:fork", "Make running copies of a running sandbox."),
        "start": ("trio_sandbox.cli.lifecycle:start", "Start sandboxes again."),
        "stop": ("trio_sandbox.cli.lifecycle:stop", "Let sandboxes write their data and power off."),
        "kill": ("trio_sandbox.cli.lifecycle:kill", "End sandboxes at once."),
        "drain": ("trio_sandbox.cli.lifecycle:drain", "Let programs finish, take no new ones, then stop."),
        "pause": ("trio_sandbox.cli.lifecycle:pause", "Make sandboxes stand still."),
        "resume": ("trio_sandbox.cli.lifecycle:resume", "Let paused sandboxes go on."),
        "restart": ("trio_sandbox.cli.lifecycle:restart", "Stop sandboxes and start them again."),
        "wait": ("trio_sandbox.cli.lifecycle:wait", "Wait for the end of sandboxes and print their exit codes."),
        "rm": ("trio_sandbox.cli.lifecycle:rm", "Remove sandboxes and all that they kept."),
    },
    "Images": {
        "pull": ("trio_sandbox.cli.pull:pull", "Bring an image from its registry."),
        "images": ("trio_sandbox.cli.images:images", "List the images that are here."),
        "rmi": ("trio_sandbox.cli.images:rmi", "Remove images."),
        "load": ("trio_sandbox.cli.pull:load", "Take images from an archive."),
        "save": ("trio_sandbox.cli.pull:save", "Write images to an archive."),
        "image": ("trio_sandbox.cli.images:image", "Look at images, and remove what is not needed."),
    },
    "Snapshots": {
        "snapshot": ("trio_sandbox.cli.snapshots:snapshot", "Keep sandboxes, to make new ones of them."),
    },
    "What they are and do": {
        "ls": ("trio_sandbox.cli.listing:ls", "List sandboxes."),
        "ps": ("trio_sandbox.cli.listing:ls", "The same as ls."),
        "inspect": ("trio_sandbox.cli.listing:inspect", "Show all that is known of sandboxes."),
        "logs": ("trio_sandbox.cli.logs:logs", "Print what programs have printed, and what became of a sandbox."),
        "metrics": ("trio_sandbox.cli.usage:metrics", "Show what a sandbox uses."),
        "top": ("trio_sandbox.cli.top:top", "Show what all sandboxes use, live."),
    },
    "Within a sandbox": {
        "exec": ("trio_sandbox.cli.exec:exec_", "Run a command in a running sandbox."),
        "shell": ("trio_sandbox.cli.exec:shell", "Open a shell in a running sandbox."),
        "attach": ("trio_sandbox.cli.attach:attach", "Go back to a session, or open one with a command."),
        "sessions": ("trio_sandbox.cli.attach:sessions", "List the sessions that nobody need be attached to."),
        "cp": ("trio_sandbox.cli.copy:cp", "Copy files and folders into a sandbox, or out of it."),
        "events": ("trio_sandbox.cli.events:events", "Print events of programs as they come."),
        "emit": ("trio_sandbox.cli.events:emit", "Send an event to programs."),
    },
}
"""By section of the help and by name: where the click command is, and its line in the help."""

COMMANDS = {name: command for section in SECTIONS.values() for name, command in section.items()}
ALIASES = {"stats": "top", "unpause": "resume", "remove": "rm"}
"""Names from elsewhere, which the help does not show."""

INTERRUPTED = 130
FAILED = 1
NOBODY_READS = 141
"""As a shell tells of a program that SIGPIPE ended."""
FAILED_ITSELF = dict.fromkeys(("run", "exec", "shell", "attach"), 125)
"""Commands whose exit status is another program's tell their own failure by a status of their own."""


class NobodyReadsError(Exception):
    """Whoever read our output is gone."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click itself would exit with 1
            raise NobodyReadsError from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and name not in ALIASES and not name.startswith("-") and not ctx.resilient_parsing:
            near = nearest(name, [*COMMANDS, *ALIASES])
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {near!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, line) for name, (_, line) in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Without importing the commands."""
        found = [CompletionItem(name, help=line) for name, (_, line) in COMMANDS.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the whole traceback of a failure.")
@click.version_option(package_name="trio-sandbox")
def program(debug: bool) -> None:
    """MicroVM sandboxes for untrusted commands, owned by a Trio nursery.

    Exit status: 0; 1 when something failed, 125 where the status is that of a command in a sandbox; 2 for wrong usage;
    130 when interrupted.
    """


def run(arguments: Sequence[str]) -> int:
    """Run the program and return its exit status.

    The command's own, or 1 after a failure (125 of those in FAILED_ITSELF), 2 for wrong usage, 130 when interrupted,
    141 when nobody reads what it prints. With --debug failures are raised.
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
    except* (BrokenPipeError, NobodyReadsError):
        status = NOBODY_READS
        # Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except* Exception as group:
        if debug:
            raise
        status = failed
        told += sentences(group)
    for sentence in dict.fromkeys(told):
        tell(sentence)
    return status


def _command_at(arguments: Sequence[str]) -> int:
    """Where the command's name is: what comes after it is not for us to read."""
    return next((index for index, word in enumerate(arguments) if not word.startswith("-")), len(arguments))


def _invoke(arguments: list[str]) -> int:
    try:
        status = program.main(arguments, prog_name="trio-sandbox", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    return status if isinstance(status, int) else 0
