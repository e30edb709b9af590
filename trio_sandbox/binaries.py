"""Where the two programs in C are that come with this package: the guest agent and the host helper.

They are compiled when the package is built (`hatch_build.py`) and are static, so they run wherever the kernel does.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from trio_sandbox.errors import HostNotReadyError


def agent_path() -> Path:
    """The guest agent: what runs as /init in a sandbox. Raises HostNotReadyError."""
    return program("agent")


def host_program_path() -> Path:
    """The host helper, with the subcommands `launch` and `tsc-khz`. Raises HostNotReadyError."""
    return program("host")


def program(name: str) -> Path:
    """The program of this name for this machine's architecture. Raises HostNotReadyError if the build left it out."""
    path = Path(str(files("trio_sandbox"))) / "_bin" / f"{name}-{os.uname().machine}"
    if not os.access(path, os.X_OK):
        raise HostNotReadyError(
            f"{name} program",
            f"{path} is missing",
            "reinstall trio-sandbox (`pip install -e .` in a source tree) where a C compiler is at hand",
        )
    return path
