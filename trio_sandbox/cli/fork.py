"""`trio-sandbox fork`: running copies of a sandbox that runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from trio_sandbox.cli.options import label_option, labels, name_argument


@click.command()
@name_argument
@click.argument("names", nargs=-1)
@click.option("-n", "count", type=click.IntRange(1, 1024), default=None, help="How many, with names of their own.")
@label_option
@click.option("--rm", is_flag=True, help="Remove each when it ends.")
@click.option("--json", "as_json", is_flag=True, help="Print the names as a JSON list.")
def fork(name: str, names: Sequence[str], count: int | None, label: Sequence[str], rm: bool, as_json: bool) -> int:
    """Make running copies of the sandbox NAME, which goes on, and print their names.

    Memory, disk and programs of each are the parent's at one moment, and its own from then on. NAMES are those of the
    copies, one for each; without them one copy, or as many as -n says, gets a name of its own. They go on until they
    are stopped. When one cannot be made, none is.
    """
    if names and count not in (None, len(names)):
        raise click.UsageError(f"{len(names)} names for {count} copies.")
    from trio_sandbox.cli.running import run_async

    changes: dict[str, Any] = {"labels": labels(label)} if label else {}
    if rm:
        changes["ephemeral"] = True
    return run_async(forked, name, tuple(names), count or len(names) or 1, changes, as_json)


async def forked(parent: str, names: tuple[str, ...], count: int, changes: dict[str, Any], as_json: bool) -> None:
    """The whole of it."""
    from trio_sandbox.client.sandbox import Sandbox

    handle = await Sandbox.get(parent)
    async with await handle.connect() as sandbox:
        children = await sandbox.fork(count, name=names or None, detached=True, **changes)
    made = [await child.name for child in children]
    for child in children:
        await child.detach()
    click.echo(json.dumps(made) if as_json else "\n".join(made))
