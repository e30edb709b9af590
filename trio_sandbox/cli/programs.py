"""Running a program in a sandbox for a person or a script: on their terminal, on their streams, or left alone.

Imports Trio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import click
import trio

from trio_sandbox.cli.failures import telling_wrong_arguments
from trio_sandbox.cli.output import tell
from trio_sandbox.cli.streams import EXIT_TIMEOUT, joined, on_terminals, status_of
from trio_sandbox.client.options import Stdin
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.errors import ExecFailedError


@attrs.frozen
class Program:
    """A command and what it gets. stdin: whether our standard input is passed in. detach_keys: "" for none."""

    command: Sequence[str]
    tty: bool = False
    stdin: bool = False
    timeout: float | None = None
    env: Mapping[str, str] = attrs.field(factory=dict)
    workdir: str | None = None
    user: str | None = None
    detach_keys: str | None = None

    @property
    def surroundings(self) -> dict[str, Any]:
        return {"cwd": self.workdir, "user": self.user, "env": self.env or None}


async def run_program(sandbox: Sandbox, program: Program) -> int:
    """Run it to its end, or until it is detached from; its exit status. With `tty` on our terminal, where there is one:
    elsewhere on a terminal of its own, whose output is passed on.
    """
    if program.tty and on_terminals():
        return await _on_our_terminal(sandbox, program)
    stdin = Stdin.pipe() if program.stdin else None
    cmd, *args = program.command
    with telling_wrong_arguments():
        handle = await sandbox.exec_stream(
            cmd, args, stdin=stdin, tty=program.tty, timeout=program.timeout, **program.surroundings
        )
    async with handle:
        return await joined(handle)


async def _on_our_terminal(sandbox: Sandbox, program: Program) -> int:
    cmd, *args = program.command
    with trio.move_on_after(float("inf") if program.timeout is None else program.timeout):
        try:
            with telling_wrong_arguments():
                return int(await sandbox.attach(cmd, args, detach_keys=program.detach_keys, **program.surroundings))
        except ExecFailedError as error:
            return status_of(error)
    tell(f"the command was killed at its timeout of {program.timeout:g} s")
    return EXIT_TIMEOUT


async def leave_running(sandbox: Sandbox, program: Program) -> int:
    """Start it, and let it go on without us; prints the number of its session."""
    cmd, *args = program.command
    stdin = Stdin.pipe() if program.stdin else None
    with telling_wrong_arguments():
        handle = await sandbox.exec_stream(
            cmd, args, stdin=stdin, tty=program.tty, timeout=program.timeout, detached=True, **program.surroundings
        )
    async with handle:
        try:
            await handle.wait_until_started()
        except ExecFailedError as error:
            return status_of(error)
        click.echo(handle.session_id)
    return 0
