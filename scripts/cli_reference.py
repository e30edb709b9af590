"""Write `docs/cli.md` from the help of the commands. A test checks that it is current."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trio_sandbox.cli.program import ALIASES, SECTIONS, program

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
SETTINGS: dict[str, Any] = {
    "max_content_width": 100,
    "terminal_width": 100,
    "help_option_names": program.context_settings["help_option_names"],
}
HEAD = """# The command line

`trio-sandbox`, or `python -m trio_sandbox`. This page is made of the commands' help by `scripts/cli_reference.py`.
"""


def reference() -> str:
    """The page."""
    top = click.Context(program, info_name="trio-sandbox", **SETTINGS)
    parts = [HEAD, _block(program.get_help(top))]
    for title, section in SECTIONS.items():
        parts.append(f"## {title}\n")
        parts += [_entry(top, name) for name in section]
    also = ", ".join(f"`{alias}` for `{name}`" for alias, name in ALIASES.items())
    parts.append(f"Also understood: {also}.\n")
    return "\n".join(parts)


def _entry(top: click.Context, name: str) -> str:
    command = program.get_command(top, name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=top, **SETTINGS)
    entry = f"### {name}\n\n{_block(command.get_help(context))}"
    if isinstance(command, click.Group):
        for word, inner in command.commands.items():
            entry += "\n" + _block(inner.get_help(click.Context(inner, info_name=word, parent=context, **SETTINGS)))
    return entry


def _block(text: str) -> str:
    lines = (line.rstrip() for line in text.splitlines())
    return "```text\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    PAGE.write_text(reference())
