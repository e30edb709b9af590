"""`trio-sandbox doctor`: a table of what sandboxes need, with a remedy for each line that fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from trio_sandbox.home import Home

if TYPE_CHECKING:
    from trio_sandbox.host.checks import Finding

MARKS = {"ok": "ok", "failed": "FAILED", "note": "note"}
STYLES = {"ok": "green", "failed": "bold red", "note": "yellow"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--reprobe", is_flag=True, help="Boot a guest again to see whether KVM works.")
def doctor(as_json: bool, reprobe: bool) -> int:
    """Show what is ready on this machine, what is not, and how to mend it.

    Exits with 0 when sandboxes can run here, else with 1.
    """
    import trio

    from trio_sandbox.host.checks import examine, ready

    async def look() -> list[Finding]:
        return await examine(Home.default(), reprobe=reprobe)

    findings = trio.run(look)
    if as_json:
        click.echo(as_document(findings, ready=ready(findings)))
    elif sys.stdout.isatty():
        _show_table(findings)
    else:
        click.echo(as_text(findings))
    return 0 if ready(findings) else 1


def as_document(findings: Sequence[Finding], *, ready: bool) -> str:
    """JSON: `ready`, and `findings` with component, status (ok, failed, note), detail and remedy."""
    lines = [
        {"component": found.component, "status": found.status, "detail": found.detail, "remedy": found.remedy}
        for found in findings
    ]
    return json.dumps({"ready": ready, "findings": lines}, indent=2, ensure_ascii=False)


def as_text(findings: Sequence[Finding]) -> str:
    """Plain lines for a pipe or a log: no colour, nothing cut."""
    width = max(len(found.component) for found in findings)
    lines = []
    for found in findings:
        lines.append(f"{found.component:<{width}}  {MARKS[found.status]:<6}  {found.detail}")
        if found.remedy:
            lines.append(f"{'':<{width}}  {'':<6}  → {found.remedy}")
    return "\n".join(lines)


def _show_table(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("component", "", "what was found"):
        table.add_column(heading, overflow="fold")
    for found in findings:
        detail = Text(found.detail)
        if found.remedy:
            detail.append(f"\n→ {found.remedy}", style="bold")
        table.add_row(found.component, Text(MARKS[found.status], style=STYLES[found.status]), detail)
    Console().print(table)
