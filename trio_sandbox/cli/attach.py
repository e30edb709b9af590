"""`attach` and `sessions`: programs that go on while nobody is attached to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import click

from trio_sandbox.cli.failures import CommandError, telling_wrong_arguments
from trio_sandbox.cli.options import (
    detach_keys_option,
    environment,
    json_option,
    name_argument,
    program_options,
)
from trio_sandbox.cli.output import show_json, show_table
from trio_sandbox.cli.words import ProgramCommand

if TYPE_CHECKING:
    from trio_sandbox.relay.client_messages import SessionInfo


@click.command(cls=ProgramCommand)
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input to a session without a terminal.")
@program_options
@detach_keys_option
@name_argument
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[SESSION | COMMAND...]")
def attach(
    interactive: bool,
    env: Sequence[str],
    workdir: str | None,
    user: str | None,
    detach_keys: str | None,
    name: str,
    command: Sequence[str],
) -> int:
    """Attach to a session of the sandbox NAME, or to a new one of COMMAND, and return its exit code.

    It begins with the newest 64 KiB of the session's output. SESSION is a number of `sessions`, and not needed when
    there is only one. A session with a terminal needs one here, which ctrl-] leaves; Ctrl-C leaves one without. What is
    left goes on.
    """
    from trio_sandbox.cli.running import run_async

    if command and not is_session(command):
        from trio_sandbox.cli.exec import exec_in
        from trio_sandbox.cli.programs import Program

        program = Program(
            command,
            tty=True,
            stdin=interactive,
            env=environment(env),
            workdir=workdir,
            user=user,
            detach_keys=detach_keys,
        )
        return run_async(exec_in, name, program, False)
    if env or workdir or user:
        raise click.UsageError("a session that runs takes no environment, working directory or user")
    return run_async(come_back, name, int(command[0]) if command else None, interactive, detach_keys)


def is_session(command: Sequence[str]) -> bool:
    """Whether the words are the number of a session."""
    return len(command) == 1 and command[0].isascii() and command[0].isdigit()


async def come_back(name: str, number: int | None, interactive: bool, detach_keys: str | None) -> int:
    """Attach to a session that runs, the only one without a number; its exit status, 0 when it was left again."""
    from trio_sandbox.cli.streams import joined
    from trio_sandbox.client.sandbox import Sandbox

    handle = await Sandbox.get(name)
    async with await handle.connect() as sandbox:
        session = chosen(await sandbox.sessions(), number, name)
        if session.tty:
            with telling_wrong_arguments():
                return int(await sandbox.attach(session.id, detach_keys=detach_keys))
        async with await sandbox.attach_session(session.id) as program:
            if not interactive:
                program.take_stdin()
            return await joined(program)


def chosen(sessions: Sequence[SessionInfo], number: int | None, name: str) -> SessionInfo:
    """The session of this number, or the only one. Raises CommandError."""
    found = [session for session in sessions if number is None or session.id == number]
    if len(found) == 1:
        return found[0]
    if found:
        raise CommandError(f"sandbox {name!r} has {len(found)} sessions; name one of `trio-sandbox sessions {name}`")
    problem = "has no session" if number is None else f"has no session {number}"
    raise CommandError(f"sandbox {name!r} {problem}; `trio-sandbox sessions {name}` lists those that there are")


@click.command()
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Numbers alone, one a line.")
@name_argument
def sessions(as_json: bool, quiet: bool, name: str) -> int:
    """List the programs of the sandbox NAME that were started with `exec -d`, or left by the detach keys."""
    from trio_sandbox.cli.running import run_async

    async def show() -> None:
        from trio_sandbox.client.sandbox import Sandbox

        handle = await Sandbox.get(name)
        async with await handle.connect() as sandbox:
            show_sessions(await sandbox.sessions(), as_json=as_json, quiet=quiet)

    return run_async(show)


def show_sessions(sessions: Sequence[SessionInfo], *, as_json: bool, quiet: bool) -> None:
    """As a table, as JSON, or their numbers."""
    if as_json:
        show_json([attrs.asdict(session) for session in sessions])
    elif quiet:
        for session in sessions:
            click.echo(session.id)
    else:
        rows = [
            (str(found.id), str(found.pid), _word(found.tty), _word(found.attached), found.command)
            for found in sessions
        ]
        show_table(("SESSION", "PID", "TTY", "ATTACHED", "COMMAND"), rows)


def _word(is_so: bool) -> str:
    return "yes" if is_so else "no"
