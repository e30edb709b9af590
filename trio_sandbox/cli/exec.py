"""`exec` and `shell`: programs in a sandbox that runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from trio_sandbox.cli.options import detach_keys_option, environment, name_argument, program_options, timeout_option
from trio_sandbox.cli.words import ProgramCommand

if TYPE_CHECKING:
    from trio_sandbox.cli.programs import Program


@click.command("exec", cls=ProgramCommand)
@click.option("-d", "--detach", is_flag=True, help="Leave it running, and print the number of its session.")
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input in; a pipe or a file always is.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal, and bridge this one to it.")
@program_options
@timeout_option
@detach_keys_option
@name_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    detach: bool,
    interactive: bool,
    tty: bool,
    env: Sequence[str],
    workdir: str | None,
    user: str | None,
    timeout: float | None,
    detach_keys: str | None,
    name: str,
    command: Sequence[str],
) -> int:
    """Run COMMAND in the sandbox NAME and return its exit code.

    Output is passed on as it comes, standard input too when it is a pipe or a file; `< /dev/null` keeps it out. With -t
    it runs on a terminal, which ctrl-] leaves: `attach` comes back. 127: the command was not found; 126: it cannot be
    executed; 128+n: signal n ended it; 124: --timeout; 125: there is no such sandbox, or it does not run.
    """
    from trio_sandbox.cli.programs import Program
    from trio_sandbox.cli.running import run_async
    from trio_sandbox.cli.streams import is_piped

    program = Program(
        command,
        tty=tty,
        stdin=interactive or (is_piped() and not detach),
        timeout=timeout,
        env=environment(env),
        workdir=workdir,
        user=user,
        detach_keys=detach_keys,
    )
    return run_async(exec_in, name, program, detach)


async def exec_in(name: str, program: Program, detach: bool) -> int:
    """The whole of `exec`: returns the exit status."""
    from trio_sandbox.cli.programs import leave_running, run_program
    from trio_sandbox.client.sandbox import Sandbox

    handle = await Sandbox.get(name)
    async with await handle.connect() as sandbox:
        return await (leave_running if detach else run_program)(sandbox, program)


@click.command()
@program_options
@detach_keys_option
@name_argument
def shell(
    env: Sequence[str],
    workdir: str | None,
    user: str | None,
    detach_keys: str | None,
    name: str,
) -> int:
    """Open the shell of the sandbox NAME on this terminal, and return its exit code. ctrl-] leaves it.

    Without a terminal, it runs what comes on standard input.
    """
    from trio_sandbox.cli.running import run_async

    async def open_shell() -> int:
        from trio_sandbox.cli.programs import Program, run_program
        from trio_sandbox.cli.streams import on_terminals
        from trio_sandbox.client.sandbox import Sandbox

        handle = await Sandbox.get(name)
        program = Program(
            (handle.config.shell,),
            tty=on_terminals(),
            stdin=True,
            env=environment(env),
            workdir=workdir,
            user=user,
            detach_keys=detach_keys,
        )
        async with await handle.connect() as sandbox:
            return await run_program(sandbox, program)

    return run_async(open_shell)
