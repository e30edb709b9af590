"""The command line.

Nothing heavy is imported until a command needs it, so that `--help` and a set-up with nothing to do are quick.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the program with the arguments of this process and exit with its status."""
    import sys

    from trio_sandbox.cli.program import run

    sys.exit(run(sys.argv[1:]))
