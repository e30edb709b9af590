"""`trio-sandbox logs`: what programs have printed, and what became of a sandbox."""

from __future__ import annotations

import base64
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

import attrs
import click

from trio_sandbox.cli.options import json_option, name_argument
from trio_sandbox.cli.output import show_json_line, tell

if TYPE_CHECKING:
    from trio_sandbox.client.handle import SandboxHandle
    from trio_sandbox.client.logs import LogStream
    from trio_sandbox.logs.entry import LogEntry

SOURCES = ("stdout", "stderr", "output", "system", "all")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_SPAN = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")


def when(option: str, text: str | None) -> float | None:
    """The moment that somebody typed; None for none. Raises UsageError."""
    try:
        return None if text is None else moment(text)
    except ValueError:
        raise click.UsageError(
            f"{option}: {text!r} is neither a time like 2026-01-31T12:00:00Z nor a length like 10m or 1h30m"
        ) from None


def moment(text: str) -> float:
    """A length of time before now, seconds since the epoch, or a date; without a zone it is local. Raises ValueError.

    In milliseconds since the epoch.
    """
    if _SPAN.fullmatch(text):
        ago = sum(float(count) * UNITS[unit] for count, unit in re.findall(r"([\d.]+)([smhd])", text))
        return (time.time() - ago) * 1000
    try:
        return float(text) * 1000
    except ValueError:
        return datetime.fromisoformat(text).timestamp() * 1000


@attrs.frozen
class Wanted:
    """What `logs` was asked for."""

    sources: Sequence[str] | None
    since_ms: float | None
    until_ms: float | None
    tail: int | None
    follow: bool


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until the sandbox has ended.")
@click.option("-n", "--tail", default="all", metavar="LINES", help="Only the last so many lines.  [default: all]")
@click.option("--since", metavar="WHEN", default=None, help="Only what came at this time or later.")
@click.option("--until", metavar="WHEN", default=None, help="Only what came before this time.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    type=click.Choice(SOURCES),
    help="Only these; may be repeated.  [default: what programs print]",
)
@click.option("-t", "--timestamps", is_flag=True, help="Begin each line with its time (UTC).")
@json_option
@name_argument
def logs(
    follow: bool,
    tail: str,
    since: str | None,
    until: str | None,
    sources: Sequence[str],
    timestamps: bool,
    as_json: bool,
    name: str,
) -> int:
    """Print what the programs in the sandbox NAME have printed, whether it runs or not.

    Their standard error goes to standard error, all else to standard output.
    WHEN is a time (2026-01-31T12:00:00Z), seconds since the epoch, or so long ago (10m, 1h30m). The source `output` is
    programs on a terminal, `system` the sandbox itself and its kernel. With --json each line is one piece as it was
    captured, and --tail counts pieces.
    """
    from trio_sandbox.cli.running import run_async

    if tail != "all" and not (tail.isascii() and tail.isdigit()):
        raise click.UsageError(f"--tail must be a number of lines or all, not {tail!r}")
    wanted = Wanted(
        sources or None, when("--since", since), when("--until", until), None if tail == "all" else int(tail), follow
    )
    show = as_line if as_json else Printer(timestamps).show
    return run_async(print_logs, name, wanted, show, as_json)


async def print_logs(name: str, wanted: Wanted, show: Callable[[LogEntry], None], by_piece: bool) -> None:
    """The whole of `logs`. by_piece: the tail counts pieces, and not lines."""
    from trio_sandbox.client.sandbox import Sandbox

    handle = await Sandbox.get(name)
    cursor = None
    if wanted.tail is not None:
        cursor = await _print_tail(handle, wanted, show, wanted.tail, by_piece)
        if not wanted.follow:
            return
    stream = await handle.log_stream(
        sources=wanted.sources,
        since_ms=wanted.since_ms if cursor is None else None,
        from_cursor=cursor,
        until_ms=wanted.until_ms,
        follow=wanted.follow,
    )
    async with stream:
        while (entry := await _next(stream)) is not None:
            show(entry)


async def _next(stream: LogStream) -> LogEntry | None:
    from trio_sandbox.errors import MissedLogsError

    try:
        return await stream.recv()
    except MissedLogsError:
        tell("some output was removed to make room for new before it was read")
    return await _next(stream)


async def _print_tail(
    handle: SandboxHandle, wanted: Wanted, show: Callable[[LogEntry], None], tail: int, by_piece: bool
) -> str | None:
    """Print the last of what is there; the cursor of its end, None where nothing is."""
    entries = await handle.logs(
        tail=max(tail, 1) if by_piece else None,
        since_ms=wanted.since_ms,
        until_ms=wanted.until_ms,
        sources=wanted.sources,
    )
    shown = (entries if tail else []) if by_piece else last_lines(entries, tail)
    for entry in shown:
        show(entry)
    return entries[-1].cursor if entries else None


def last_lines(entries: Sequence[LogEntry], count: int) -> list[LogEntry]:
    """The entries that the last `count` lines are in, the first of them cut to where these begin."""
    found: list[LogEntry] = []
    lines = 0
    for entry in reversed(entries):
        data = entry.data
        ends = [index for index, byte in enumerate(data) if byte == 10]
        if not found and (not ends or ends[-1] != len(data) - 1):
            lines += 1  # the last line has no end yet
        left = count - lines
        if len(ends) > left:
            rest = data[ends[len(ends) - left - 1] + 1 :] if left >= 0 else b""
            return [attrs.evolve(entry, data=rest), *found] if rest else found
        lines += len(ends)
        found.insert(0, entry)
    return found


def as_line(entry: LogEntry) -> None:
    """One piece as a line of JSON: `text`, or `base64` for what is not UTF-8."""
    try:
        data = {"text": entry.data.decode()}
    except UnicodeDecodeError:
        data = {"base64": base64.b64encode(entry.data).decode()}
    show_json_line({"timestamp_ms": entry.timestamp_ms, "source": entry.source, "session_id": entry.session_id, **data})


class Printer:
    """Pieces as they were printed, with the time before each line if it is wanted."""

    def __init__(self, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._within: set[tuple[str, int | None]] = set()
        """Who has begun a line."""

    def show(self, entry: LogEntry) -> None:
        stream: BinaryIO = (sys.stderr if entry.source == "stderr" else sys.stdout).buffer
        stream.write(self._stamped(entry) if self._timestamps else entry.data)
        stream.flush()

    def _stamped(self, entry: LogEntry) -> bytes:
        stamp = datetime.fromtimestamp(entry.timestamp_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ ").encode()
        who = (entry.source, entry.session_id)
        lines = _LINE.findall(entry.data)
        text = stamp.join(lines) if who in self._within else b"".join(stamp + line for line in lines)
        (self._within.discard if entry.data.endswith(b"\n") else self._within.add)(who)
        return text
