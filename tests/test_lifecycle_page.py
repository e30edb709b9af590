"""The page about the lifecycle says what the table says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from trio_sandbox.lifecycle import TRANSITIONS, EndReason, State

ROOT = Path(__file__).parents[1]


def test_the_page_is_made_of_the_table() -> None:
    text = (ROOT / "docs" / "lifecycle.md").read_text()
    argv = [sys.executable, str(ROOT / "scripts" / "lifecycle_diagram.py"), "--print"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=True)
    assert text == done.stdout, "run `python scripts/lifecycle_diagram.py`"
    diagram = text.split("```mermaid\n")[1].split("```")[0]
    for (source, cause), target in TRANSITIONS.items():
        (arrow,) = (line for line in diagram.splitlines() if line.startswith(f"    {source} --> {target}:"))
        assert cause.value in arrow
    assert all(state in diagram for state in State)
    assert all(f"`{reason}`" in text for reason in EndReason)
