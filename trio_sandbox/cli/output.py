"""What every command says in the same way: tables, JSON, colours, sizes and ages. Imports nothing heavy."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

GAP = "   "
NARROWEST = 8
"""Columns that a column of a table is left with, at least, when the table does not fit."""
STATUS_STYLES = {
    "running": "green",
    "creating": "cyan",
    "paused": "yellow",
    "draining": "yellow",
    "stopped": "bright_black",
    "crashed": "red",
}
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
SPANS = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def on_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout is not None and sys.stdout.isatty()


def coloured() -> bool:
    """Whether standard output may have colours: on a terminal, unless `NO_COLOR` or `TERM` says otherwise."""
    return on_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show_json(value: object) -> None:
    """One JSON document, for people and programs."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_json_line(value: object) -> None:
    """One JSON document in a line, of a stream that goes on."""
    click.echo(json.dumps(value, ensure_ascii=False))


def show_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """A table: cut to the width of a terminal, whole elsewhere. styles: by heading, colours of the texts below it."""
    width = None
    if on_terminal():
        import shutil

        width = shutil.get_terminal_size().columns
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = _fitting([headings, *cells], width)
    paint = (styles or {}) if coloured() else {}
    click.echo(_line(headings, widths, {}))
    for row in cells:
        click.echo(_line(row, widths, {index: paint.get(heading, {}) for index, heading in enumerate(headings)}))


def plain(text: str) -> str:
    """Text of a guest or a stranger in one line, without what a terminal would obey."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _fitting(rows: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """The width of each column: what its longest text has; where that is too much, the widest ones give way."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is None:
        return widths
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    while excess > 0 and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
        excess -= 1
    return widths


def _line(row: Sequence[str], widths: Sequence[int], styles: Mapping[int, Mapping[str, str]]) -> str:
    pieces = []
    for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
        text = cell if len(cell) <= width else cell[: width - 1] + "…"
        colour = styles.get(index, {}).get(cell)
        last = index == len(row) - 1
        padding = "" if last else " " * (width - len(text))
        pieces.append((click.style(text, fg=colour) if colour else text) + padding)
    return GAP.join(pieces).rstrip()


def size(count: float) -> str:
    """Bytes for people: "3.4 MiB"."""
    for unit in UNITS:
        if count < 1024 or unit == UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def span(seconds: float) -> str:
    """A length of time for people, in its largest unit: "3 minutes"."""
    for length, unit in SPANS:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "0 seconds"


def age(at_ns: int) -> str:
    """How long ago a time since the epoch was: "3 minutes"."""
    return span(max(0.0, (time.time_ns() - at_ns) / 1e9))


def milliseconds(at_ns: int) -> float | None:
    """A time of the store as the API has it; None for never."""
    return at_ns / 1e6 if at_ns else None


def tell(sentence: str) -> None:
    """Say something to the person, beside the output."""
    click.echo(f"trio-sandbox: {sentence}", err=True)


def as_plain(value: Any) -> Any:
    """A value of attrs classes, enums and paths as what JSON has."""
    import attrs

    def simple(_: object, __: object, inner: Any) -> Any:
        return os.fspath(inner) if isinstance(inner, os.PathLike) else inner

    return attrs.asdict(value, value_serializer=simple)
