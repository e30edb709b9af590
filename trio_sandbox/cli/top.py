"""`trio-sandbox top`: what all sandboxes use, in a table that is drawn again and again."""

from __future__ import annotations

import click

from trio_sandbox.cli.options import json_option


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that have ended.")
@click.option("--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds.")
@click.option("--no-stream", is_flag=True, help="Print the table once, as it is done where there is no terminal.")
@json_option
def top(everything: bool, interval: float, no_stream: bool, as_json: bool) -> int:
    """Show what all sandboxes use, live, the busiest first. q or Ctrl-C ends it.

    --json prints one document and ends.
    """
    from trio_sandbox.cli.running import run_async
    from trio_sandbox.cli.streams import on_terminals
    from trio_sandbox.cli.top_view import live, once

    if as_json or no_stream or not on_terminals():
        return run_async(once, everything, as_json)
    return run_async(live, everything, interval)
