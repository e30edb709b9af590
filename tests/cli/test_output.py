"""Tables, sizes and ages, as people and programs get them."""

from __future__ import annotations

import sys

import click
import pytest

from trio_sandbox.cli import output

ROWS = [("worker", "local/base", "running"), ("w2", "registry.example/a/long/name:tag", "crashed")]


class Terminal:
    """Standard output as a terminal of some width."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    output.show_table(("NAME", "IMAGE", "STATUS"), ROWS, {"STATUS": output.STATUS_STYLES})
    return capsys.readouterr().out.splitlines()


def test_a_table_in_a_pipe_is_whole_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys) == [
        "NAME     IMAGE                              STATUS",
        "worker   local/base                         running",
        "w2       registry.example/a/long/name:tag   crashed",
    ]


def test_a_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(monkeypatch, 40)
    lines = shown(capsys)
    assert lines[2] == "w2       registry.example/a/l…   \x1b[31mcrashed\x1b[0m"
    assert len(click.unstyle(lines[1])) <= 40


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_where_they_are_not_wanted(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Terminal(monkeypatch, 200)
    monkeypatch.setenv(name, value)
    assert "\x1b" not in "".join(shown(capsys))


def test_text_of_strangers_does_not_steer_the_terminal() -> None:
    assert output.plain("a\x1b[2Jb\nc\u202ed é") == "a\ufffd[2Jb\ufffdc\ufffdd é"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (150 << 20, "150 MiB"), (5 << 50, "5120 TiB")],
)
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0 seconds"), (1, "1 second"), (119, "1 minute"), (7200, "2 hours"), (200_000, "2 days")],
)
def test_spans(seconds: float, text: str) -> None:
    assert output.span(seconds) == text
