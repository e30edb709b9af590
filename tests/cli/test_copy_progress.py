"""The bar of `cp`: when it appears, what it says, and that it goes."""

from __future__ import annotations

import pytest

from trio_sandbox.cli.copy_progress import CLEAR, Bar, shown_progress


class Seen:
    """A terminal, and a clock that stands still."""

    def __init__(self, total: int | None) -> None:
        self.now = 100.0
        self.shown: list[str] = []
        self.bar = Bar("big", total, self.shown.append, lambda: self.now)

    def after(self, seconds: float, done: int) -> str:
        """What is new on the terminal when so much is there so long after the last time."""
        self.now += seconds
        before = len(self.shown)
        self.bar.tell(done)
        return "".join(self.shown[before:])


def test_a_bar_for_what_takes_long() -> None:
    seen = Seen(4 << 20)
    assert seen.after(0.3, 1 << 20) == ""
    assert seen.after(0.7, 2 << 20) == f"{CLEAR}big: [##########          ]  50%  2.0 MiB, 2.0 MiB/s"
    assert seen.after(0.05, 3 << 20) == ""
    assert seen.after(0.95, 8 << 20) == f"{CLEAR}big: [####################] 100%  8.0 MiB, 4.0 MiB/s"
    seen.bar.end()
    assert seen.shown[-1] == CLEAR


@pytest.mark.parametrize("total", [None, 0])
def test_no_bar_where_the_end_is_not_known(total: int | None) -> None:
    assert Seen(total).after(1.0, 1 << 20) == f"{CLEAR}big: 1.0 MiB, 1.0 MiB/s"


def test_what_is_quick_shows_nothing() -> None:
    seen = Seen(1)
    seen.after(0.1, 1)
    seen.bar.end()
    assert seen.shown == []


def test_no_terminal_no_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_sandbox.cli.copy_progress.QUICK", -1)
    with shown_progress("a\x1b[2J", 2, is_shown=False) as tell:
        tell(1)
    assert capsys.readouterr().err == ""
    with shown_progress("a\x1b[2J", 2, is_shown=True) as tell:
        tell(1)
    told = capsys.readouterr().err
    assert "a\N{REPLACEMENT CHARACTER}[2J: [##########" in told and told.endswith(CLEAR)
