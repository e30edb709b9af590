"""`trio-sandbox metrics`, and how usage is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import click

from trio_sandbox.cli.options import json_option, name_argument
from trio_sandbox.cli.output import show_json, show_json_line, size, span

if TYPE_CHECKING:
    from trio_sandbox.client.handle import SandboxHandle
    from trio_sandbox.client.metrics import SandboxMetrics

COLUMNS = (("CPU %", 7), ("MEMORY / LIMIT", 21), ("MEM %", 7), ("DISK READ / WRITTEN", 23), ("UP", 12))
"""Headings, and the columns that the widest usual value takes."""


def cells(used: SandboxMetrics) -> tuple[str, ...]:
    """One text below each heading of COLUMNS."""
    return (
        f"{used.cpu_percent:.1f}",
        f"{size(used.memory_bytes)} / {size(used.memory_limit_bytes)}",
        f"{100 * used.memory_bytes / max(1, used.memory_limit_bytes):.1f}",
        f"{size(used.disk_read_bytes)} / {size(used.disk_write_bytes)}",
        span(used.uptime_ms / 1000),
    )


def line(texts: tuple[str, ...]) -> str:
    """Texts below each other, whatever comes later."""
    return "  ".join(text.rjust(width) for text, (_, width) in zip(texts, COLUMNS, strict=True))


@click.command()
@click.option("--watch", is_flag=True, help="Print them again and again until the sandbox ends, or Ctrl-C.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds, for --watch."
)
@json_option
@name_argument
def metrics(watch: bool, interval: float, as_json: bool, name: str) -> int:
    """Show what the sandbox NAME uses now, also while it is paused. 100 % is one busy virtual CPU; disk since the boot.

    --json has sizes in bytes and times in milliseconds, with --watch one document a line.
    """
    from trio_sandbox.cli.running import run_async

    return run_async(_watch if watch else _once, name, interval, as_json)


async def _once(name: str, interval: float, as_json: bool) -> None:
    used = await (await _found(name)).metrics()
    if as_json:
        show_json(attrs.asdict(used))
    else:
        click.echo(line(tuple(heading for heading, _ in COLUMNS)))
        click.echo(line(cells(used)))


async def _watch(name: str, interval: float, as_json: bool) -> None:
    from trio_sandbox.client.metrics import MetricsStream

    stream = MetricsStream((await _found(name)).metrics, interval)
    if not as_json:
        click.echo(line(tuple(heading for heading, _ in COLUMNS)))
    async for used in stream:
        if as_json:
            show_json_line(attrs.asdict(used))
        else:
            click.echo(line(cells(used)))


async def _found(name: str) -> SandboxHandle:
    from trio_sandbox.client.sandbox import Sandbox

    return await Sandbox.get(name)
