"""What a failed test has to show of its sandboxes: what their programs printed, and the guest's console. Sync.

The end of each log is read from its file. A sandbox that ends takes its logs with it, one that crashes in the middle of
a test too, so the file with the programs' output is held open from the start: what has no name any more can be read.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import attrs

from trio_sandbox.logs.entry import LogEntry, decode_line
from trio_sandbox.logs.lines import lines_backward
from trio_sandbox.logs.places import LogFile
from trio_sandbox.logs.series import Part, open_parts

MAX_ENTRIES = 200
MAX_TEXT = 32_768
"""Characters of one section; the newest count."""

TITLES = {LogFile.EXEC: "log", LogFile.KERNEL: "console", LogFile.RUNTIME: "runtime"}


@attrs.define(eq=False)
class Evidence:
    """Of one sandbox. logs: the folder of its logs, None where that is not known. console: the end of the guest's
    console as the sandbox's end told it, "" before that end.
    """

    name: str
    logs: Path | None
    console: Callable[[], str]
    _held: list[Part] = attrs.Factory(list)
    _kept: tuple[tuple[str, str], ...] | None = None

    @classmethod
    def of(cls, name: str, logs: Path | None, console: Callable[[], str]) -> Evidence:
        """Of a sandbox that has just been made."""
        return cls(name, logs, console, held=[] if logs is None else open_parts(logs, LogFile.EXEC))

    def keep(self) -> None:
        """Read it now: the sandbox is about to go. Closes the files. Harmless when it was kept before."""
        if self._kept is None:
            try:
                self._kept = tuple(self._read())
            finally:
                _close(self._held)
                self._held = []

    def sections(self) -> tuple[tuple[str, str], ...]:
        """Titles and texts for a report, without those that are empty."""
        return self._kept if self._kept is not None else tuple(self._read())

    def _read(self) -> list[tuple[str, str]]:
        texts = {file: "" if self.logs is None else self._tail(self.logs, file) for file in TITLES}
        texts[LogFile.KERNEL] = texts[LogFile.KERNEL] or self.console()[-MAX_TEXT:]
        return [(f"sandbox {self.name}: {TITLES[file]}", text) for file, text in texts.items() if text]

    def _tail(self, logs: Path, file: LogFile) -> str:
        held = self._held if file is LogFile.EXEC else []
        newer = open_parts(logs, file, down_to=held[-1].identity if held else None)
        try:
            return _text([*held, *newer])
        finally:
            _close(newer)


def _text(parts: list[Part]) -> str:
    lines = (line for part in reversed(parts) for line in lines_backward(part.descriptor, part.size))
    entries = (entry for line in lines if (entry := decode_line(line)) is not None)
    pieces: list[str] = []
    size = 0
    for entry in islice(entries, MAX_ENTRIES):
        pieces.append(_shown(entry))
        size += len(pieces[-1])
        if size >= MAX_TEXT:
            break
    return "".join(reversed(pieces))[-MAX_TEXT:]


def _shown(entry: LogEntry) -> str:
    """An entry as lines of a report: each with its source, and without what would steer a terminal."""
    text = entry.text().replace("\r\n", "\n")
    lines = text.removesuffix("\n").split("\n")
    return "".join(f"{entry.source:>6} | {_plain(line)}\n" for line in lines)


def _plain(line: str) -> str:
    return "".join(char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in line)


def _close(parts: list[Part]) -> None:
    for part in parts:
        part.close()
