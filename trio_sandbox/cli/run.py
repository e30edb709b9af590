"""`trio-sandbox run IMAGE ARG…`: what an image is made for, or a command, in a sandbox of its own, wired to this
terminal's streams.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import attrs
import click

from trio_sandbox.cli.options import (
    entrypoint_words,
    environment,
    image_options,
    label_option,
    labels,
    machine_options,
    program_options,
    pull_option,
    scripts,
    snapshot_option,
    timeout_option,
)
from trio_sandbox.cli.words import ProgramCommand

if TYPE_CHECKING:
    from trio_sandbox.cli.programs import Program

SHELL = "/bin/sh"


class RunCommand(ProgramCommand):
    """With `--snapshot` there is no subject."""

    instead_of_subject = "--snapshot"


def _refuse_detaching(ctx: click.Context, param: click.Parameter, is_given: bool) -> None:
    if is_given:
        raise click.UsageError(
            "a sandbox of `run` ends with its command; `trio-sandbox create` makes one that stays", ctx
        )


@click.command(cls=RunCommand)
@click.option("-d", "--detach", is_flag=True, hidden=True, expose_value=False, callback=_refuse_detaching)
@click.option("--name", default=None, help="Name of the sandbox; made up when not given.")
@click.option("-i", "--interactive", is_flag=True, help="Accepted and not needed: standard input is always passed in.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal, and bridge this one to it.")
@snapshot_option
@pull_option
@machine_options
@program_options
@image_options
@label_option
@timeout_option
@click.option("--rm", is_flag=True, help="Accepted and not needed: the sandbox always goes with its command.")
@click.option("--timings", is_flag=True, help="Say on standard error how long each stage took.")
@click.argument("image", required=False)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(
    name: str | None,
    interactive: bool,
    tty: bool,
    snapshot: str | None,
    pull_policy: str,
    cpus: int,
    memory: int,
    cold: bool,
    env: Sequence[str],
    workdir: str | None,
    user: str | None,
    entrypoint: str | None,
    script: Sequence[str],
    label: Sequence[str],
    timeout: float | None,
    rm: bool,
    timings: bool,
    image: str | None,
    command: Sequence[str],
) -> int:
    """Run COMMAND in a fresh sandbox of IMAGE and return its exit code. With --snapshot there is no IMAGE.

    The image's entry point, if it has one, runs with COMMAND as its arguments; without COMMAND the image's own command
    takes its place. Output is passed on as it comes and standard input is passed in. With -t it runs on a terminal;
    where neither COMMAND nor IMAGE says what, that is a shell. 127: the command was not found; 126: it cannot be
    executed; 128+n: signal n ended it; 124: --timeout; 125: the sandbox itself failed. Ctrl-C ends the sandbox and
    leaves nothing behind.
    """
    if image is None and snapshot is None:
        raise click.UsageError("Missing argument 'IMAGE', or --snapshot.")
    if image is not None and snapshot is not None:  # it is the first word of the command
        command, image = (image, *command), None
    from trio_sandbox.cli.programs import Program
    from trio_sandbox.cli.running import run_async

    options: dict[str, Any] = {
        "image": image,
        "snapshot": snapshot,
        "pull_policy": pull_policy,
        "cpus": cpus,
        "memory": memory,
        "env": environment(env),
        "workdir": workdir,
        "user": user,
        "labels": labels(label),
        "entrypoint": entrypoint_words(entrypoint),
        "scripts": scripts(script),
        "warm": not cold,
    }
    # Nobody could come back to a program whose sandbox goes with it: no detach keys.
    program = Program(command, tty=tty, timeout=timeout, stdin=True, detach_keys="")
    return run_async(run_to_end, name or f"run-{os.getpid()}", options, program, timings)


async def run_to_end(name: str, options: Mapping[str, Any], program: Program, timings: bool) -> int:
    """The whole of `run`: returns the exit code."""
    from trio_sandbox.cli.programs import run_program
    from trio_sandbox.cli.pull_progress import shown_progress
    from trio_sandbox.cli.streams import status_of
    from trio_sandbox.errors import ExecFailedError
    from trio_sandbox.sandbox import open_sandbox

    async with AsyncExitStack() as stack:
        with shown_progress(is_shown=sys.stderr.isatty()) as show:
            sandbox = await stack.enter_async_context(open_sandbox(name, on_pull=show, **options))
        if timings:
            click.echo(timeline(sandbox.timings), err=True)
        try:
            command = sandbox.default_command(program.command or None)
        except ExecFailedError as error:
            if not program.tty:
                return status_of(error)
            command = [SHELL]
        return await run_program(sandbox, attrs.evolve(program, command=command))
    raise AssertionError("the block of a sandbox swallows nothing")


def timeline(timings: Mapping[str, float]) -> str:
    """The stages of a start, each with its own milliseconds, and their sum."""
    lines, before = [], 0.0
    for stage, at in timings.items():
        lines.append(f"{stage:<10}{(at - before) * 1e3:8.1f} ms")
        before = at
    return "\n".join([*lines, f"{'together':<10}{before * 1e3:8.1f} ms"])
