"""`ls`, `ps` and `inspect`: what the store knows. No event loop, so that they are quick."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from trio_sandbox.cli.options import json_already_option, json_option, label_option, labels, names_argument
from trio_sandbox.cli.output import STATUS_STYLES, age, milliseconds, on_terminal, show_json, show_table, tell

if TYPE_CHECKING:
    from trio_sandbox.state.rows import RunRow, SandboxRow

HEADINGS = ("NAME", "IMAGE", "STATUS", "FOR", "CREATED")


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that have ended.")
@label_option
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Names alone, one a line.")
def ls(everything: bool, label: Sequence[str], as_json: bool, quiet: bool) -> None:
    """List the sandboxes that run, are paused, drain or are being created, oldest first; with -a all of them.

    --label shows those that have all the labels given. FOR is how long the status lasts.
    """
    from trio_sandbox.home import Home
    from trio_sandbox.state.places import store_of

    rows = store_of(Home.default()).all(labels(label))
    shown = [row for row in rows if everything or row.is_live]
    if as_json:
        show_json([summary(row) for row in shown])
    elif quiet:
        for row in shown:
            click.echo(row.name)
    else:
        cells = [
            (row.name, image_text(row.config), row.status, age(row.updated_ns), f"{age(row.created_ns)} ago")
            for row in shown
        ]
        show_table(HEADINGS, cells, {"STATUS": STATUS_STYLES})
        if len(rows) > len(shown) and on_terminal():
            tell(f"{len(rows) - len(shown)} more have ended; -a shows them")


@click.command()
@json_already_option
@names_argument
def inspect(names: Sequence[str]) -> None:
    """Show all that is known of sandboxes: a JSON array with status, configuration and how each run went.

    Times are in milliseconds since the epoch.
    """
    from trio_sandbox.home import Home
    from trio_sandbox.state.places import store_of

    store = store_of(Home.default())
    show_json([details(store.get(name), store.runs(name)) for name in names])


def image_text(config: str) -> str:
    """The image or the snapshot that a configuration asks for, as it was asked for."""
    plain = json.loads(config)
    if "snapshot" in plain:
        return f"snapshot {plain['snapshot']}"
    image = plain.get("image", "")
    return str(image.get("reference", "") if isinstance(image, dict) else image)


def summary(row: SandboxRow) -> dict[str, Any]:
    """A sandbox as a line of `ls`."""
    return {
        "name": row.name,
        "status": row.status,
        "image": image_text(row.config),
        "labels": dict(row.labels),
        "created_at": milliseconds(row.created_ns),
        "updated_at": milliseconds(row.updated_ns),
        "detached": row.detached,
        "ephemeral": row.ephemeral,
        "pid": row.owner.pid if row.owner is not None else None,
    }


def details(row: SandboxRow, runs: Sequence[RunRow]) -> dict[str, Any]:
    """A sandbox with its whole configuration and its runs, oldest first."""
    return {**summary(row), "socket": row.socket or None, "config": configuration(row), "runs": [*map(run_of, runs)]}


def configuration(row: SandboxRow) -> dict[str, Any]:
    """The configuration with all defaults; as it is written where another version wrote it."""
    from trio_sandbox.cli.output import as_plain
    from trio_sandbox.config import SandboxConfig
    from trio_sandbox.errors import SandboxError

    try:
        plain: dict[str, Any] = as_plain(SandboxConfig.from_json(row.config))
    except SandboxError:
        plain = json.loads(row.config)
    return plain


def run_of(run: RunRow) -> dict[str, Any]:
    """One run; what is not known yet is null."""
    ended = bool(run.ended_ns)
    return {
        "number": run.number,
        "started_at": milliseconds(run.started_ns),
        "ended_at": milliseconds(run.ended_ns),
        "status": run.state or None,
        "reason": run.reason or None,
        "exit_code": run.exit_code if ended else None,
        "console_tail": run.console_tail,
    }
