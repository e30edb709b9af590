"""`events` and `emit`: small things that programs and host tell each other by name."""

from __future__ import annotations

import json

import click

from trio_sandbox.cli.failures import telling_wrong_arguments
from trio_sandbox.cli.options import json_already_option, name_argument
from trio_sandbox.cli.output import show_json_line


@click.command()
@json_already_option
@name_argument
@click.argument("event", required=False)
def events(name: str, event: str | None) -> int:
    """Print what programs in the sandbox NAME emit, called EVENT or whatever, as it comes: JSON, one a line.

    `dropped` is how many were lost right before. Ends with the sandbox, or by Ctrl-C.
    """
    from trio_sandbox.cli.running import run_async

    async def follow() -> None:
        from trio_sandbox.client.sandbox import Sandbox

        handle = await Sandbox.get(name)
        async with await handle.connect() as sandbox:
            with telling_wrong_arguments():
                subscription = sandbox.events(event)
            async with subscription as stream:
                async for found in stream:
                    show_json_line({"name": found.name, "payload": found.payload, "dropped": found.dropped})

    return run_async(follow)


@click.command()
@name_argument
@click.argument("event")
@click.argument("payload", default="null", metavar="[JSON]")
def emit(name: str, event: str, payload: str) -> int:
    """Send EVENT with a JSON payload to the programs in the sandbox NAME, and print how many listen for it."""
    from trio_sandbox.cli.running import run_async

    try:
        value = json.loads(payload)
    except ValueError as error:
        raise click.UsageError(f"the payload is not JSON: {error}") from error

    async def send() -> None:
        from trio_sandbox.client.sandbox import Sandbox

        handle = await Sandbox.get(name)
        async with await handle.connect() as sandbox:
            with telling_wrong_arguments():
                click.echo(await sandbox.emit(event, value))

    return run_async(send)
