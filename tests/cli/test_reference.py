"""The page about the command line is what the commands say of themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "cli_reference.py"


def test_the_page_is_current() -> None:
    # In a process of its own: click remembers of a command how it was first asked for help.
    code = f"import runpy; print(runpy.run_path({str(SCRIPT)!r})['reference'](), end='')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ROOT / "docs" / "cli.md").read_text() == done.stdout, "run `python scripts/cli_reference.py`"
