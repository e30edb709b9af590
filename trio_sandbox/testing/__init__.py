"""Tools for tests of programs that use sandboxes. Import it by itself: the package never does.

    plugin.py                        pytest's plugin: fixtures with real sandboxes
    fresh.py, evidence.py            what the fixtures make; what a failed test has to show
    sandbox.py                       `simulated_sandbox`: the handle, without a virtual machine
    guest.py, program.py             the simulated guest, and what its programs see
    pool.py                          `simulated_pool`: the same for pools
    machine.py                       what the sandbox takes for a machine
    agent.py, session.py             the agent's side of the wire
    exec_session.py, processes.py    programs: signals.py, pipes.py, terminal.py
    fs_session.py, file_ops.py       file operations: files.py, inodes.py
    events.py                        events
    faults.py, strokes.py            what goes wrong
    clock.py, port.py                the time, the stream
    actions.py, model.py             what can be done to programs, and what must come of it
    player.py, played.py, play.py    both together
    backends.py, steps.py            simulated or real; a program that moves with a synchronous test
    strategies/, exec_machine.py     the same for Hypothesis, which nothing else here imports

Simulated means: nothing is isolated. It is for tests, and no sandbox.

Names load on first use: pytest imports this package whenever it starts, since the plugin is in it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_sandbox.testing.faults import Faults as Faults
    from trio_sandbox.testing.faults import Stroke as Stroke
    from trio_sandbox.testing.faults import StrokeKind as StrokeKind
    from trio_sandbox.testing.files import MemoryFiles as MemoryFiles
    from trio_sandbox.testing.fresh import SandboxFactory as SandboxFactory
    from trio_sandbox.testing.guest import SimulatedGuest as SimulatedGuest
    from trio_sandbox.testing.pool import simulated_pool as simulated_pool
    from trio_sandbox.testing.program import Main as Main
    from trio_sandbox.testing.program import Program as Program
    from trio_sandbox.testing.sandbox import cut_clients as cut_clients
    from trio_sandbox.testing.sandbox import simulated_sandbox as simulated_sandbox

_HOMES = {
    "trio_sandbox.testing.faults": ("Faults", "Stroke", "StrokeKind"),
    "trio_sandbox.testing.files": ("MemoryFiles",),
    "trio_sandbox.testing.fresh": ("SandboxFactory",),
    "trio_sandbox.testing.guest": ("SimulatedGuest",),
    "trio_sandbox.testing.program": ("Main", "Program"),
    "trio_sandbox.testing.pool": ("simulated_pool",),
    "trio_sandbox.testing.sandbox": ("cut_clients", "simulated_sandbox"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted((*globals(), *_MODULE_OF))
