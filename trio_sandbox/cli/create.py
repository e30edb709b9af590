"""`trio-sandbox create`: a sandbox that stays, in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

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
)


@click.command()
@click.argument("name")
@click.option(
    "--image",
    default=None,
    help="A name, local/NAME, or the path of an OCI layout, an archive, a disk image or a folder.",
)
@snapshot_option
@pull_option
@machine_options
@program_options
@image_options
@label_option
@click.option("--hostname", default=None, help="Host name; the sandbox's name when not given.")
@click.option("--shell", default=None, help="Path of the shell in the sandbox.  [default: /bin/sh]")
@click.option("--idle-timeout", type=float, default=None, help="Seconds without programs after which it drains.")
@click.option("--max-duration", type=float, default=None, help="Seconds of life after which it drains.")
@click.option("--boot-timeout", type=float, default=None, help="Seconds for the start.  [default: 60]")
@click.option("--listen", default=None, metavar="PATH", help="One more Unix socket for clients.")
@click.option("--rm", is_flag=True, help="Remove it when it ends.")
@click.option("--replace", is_flag=True, help="End and remove a sandbox that has the name.")
@click.option("-q", "--quiet", is_flag=True, help="Do not tell how far the image is.")
def create(
    name: str,
    cpus: int,
    memory: int,
    cold: bool,
    env: Sequence[str],
    label: Sequence[str],
    script: Sequence[str],
    rm: bool,
    replace: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Create a sandbox, start it, and print its name. It goes on until it is stopped.

    Environment, working directory and user are those of all its programs. `trio-sandbox exec NAME …` runs programs,
    `stop` keeps its disk for `start`, `rm` removes it. Ctrl-C while it is created leaves nothing of it.
    """
    if (options["image"] is None) == (options["snapshot"] is None):
        raise click.UsageError("give --image or --snapshot, one of them")
    from trio_sandbox.cli.running import run_async

    given = {
        **options,
        "cpus": cpus,
        "memory": memory,
        "env": environment(env),
        "labels": labels(label),
        "entrypoint": entrypoint_words(options["entrypoint"]),
        "scripts": scripts(script),
        "ephemeral": rm,
        "warm": not cold,
    }
    return run_async(create_detached, name, given, replace, quiet)


async def create_detached(name: str, options: Mapping[str, Any], replace: bool, quiet: bool) -> None:
    """The whole of `create`."""
    from trio_sandbox.cli.pull_progress import shown_progress
    from trio_sandbox.client.sandbox import Sandbox

    with shown_progress(is_shown=not quiet and sys.stderr.isatty()) as show:
        async with Sandbox.create_with_progress(name, detached=True, replace=replace, **options) as session:
            async for event in session.progress:
                show(event)
            sandbox = await session.result()
            await sandbox.detach()
    click.echo(name)
