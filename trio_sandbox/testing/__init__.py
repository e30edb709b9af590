"""Tools for tests of programs that use sandboxes. Import it by itself: the package never does.

    sandbox.py                       `simulated_sandbox`: the handle, without a virtual machine
    guest.py, program.py             the simulated guest, and what its programs see
    machine.py                       what the sandbox takes for a machine
    agent.py, session.py             the agent's side of the wire
    exec_session.py, processes.py    programs: signals.py, pipes.py, terminal.py
    fs_session.py, file_ops.py       file operations: files.py, inodes.py
    events.py                        events
    faults.py, clock.py, port.py     what goes wrong, the time, the stream

Simulated means: nothing is isolated. It is for tests, and no sandbox.
"""

from __future__ import annotations

from trio_sandbox.testing.faults import Faults
from trio_sandbox.testing.files import MemoryFiles
from trio_sandbox.testing.guest import SimulatedGuest
from trio_sandbox.testing.program import Main, Program
from trio_sandbox.testing.sandbox import cut_clients, simulated_sandbox

__all__ = ["Faults", "Main", "MemoryFiles", "Program", "SimulatedGuest", "cut_clients", "simulated_sandbox"]
