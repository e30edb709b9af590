"""The VMM program of this machine: where it is and which version."""

from __future__ import annotations

import os
import re
from pathlib import Path

import attrs

from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.home import Home
from trio_sandbox.host.facts import identity, recall, remember
from trio_sandbox.host.packages import emulator_name, find_program
from trio_sandbox.tools import run_tool


@attrs.frozen
class Qemu:
    """A QEMU program; `version` as it tells it, such as "7.2.22"."""

    path: Path
    version: str


def qemu_path() -> Path:
    """The QEMU program for guests of this machine's architecture. Raises HostNotReadyError when there is none."""
    name = emulator_name(os.uname().machine)
    found = find_program(name)
    if found is None:
        raise HostNotReadyError("QEMU", f"{name} is not installed")
    return Path(found)


async def find_qemu(home: Home) -> Qemu:
    """QEMU and its version. The version is asked once and remembered until the program changes.

    Raises HostNotReadyError when it is missing or does not run.
    """
    path = qemu_path()
    depends_on = {"qemu": identity(path)}
    known = recall(home.host / "qemu.json", depends_on)
    if known is not None and isinstance(version := known.get("version"), str):
        return Qemu(path, version)
    asked = await run_tool([path, "--version"], check=False)
    found = re.search(rb"version (\d+(?:\.\d+)+)", asked.stdout)
    if asked.returncode or found is None:
        said = asked.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"exit status {asked.returncode}"
        raise HostNotReadyError("QEMU", f"{path} does not tell its version ({why})", "install it again")
    version = found[1].decode()
    remember(home.host / "qemu.json", depends_on, {"version": version})
    return Qemu(path, version)
