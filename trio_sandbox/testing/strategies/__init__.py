"""Hypothesis strategies for tests of code that uses sandboxes. Needs `hypothesis` (the extra `testing`).

requests.py   what `exec` is asked for
scripts.py    what is done to programs: scripts of standard input, and of whole clients
trees.py      trees of files
faults.py     what goes wrong in a simulated guest
wire.py       frames of the wire, right and hostile
"""

from __future__ import annotations

from trio_sandbox.testing.strategies.faults import faults, harmless_faults
from trio_sandbox.testing.strategies.requests import ExecRequest, environments, exec_requests
from trio_sandbox.testing.strategies.scripts import actions, client_scripts, inputs, starts, stdin_scripts, writes
from trio_sandbox.testing.strategies.trees import FileNode, file_trees
from trio_sandbox.testing.strategies.wire import broken_headers, frames, hostile_bytes, hostile_frames, mutated_bytes

__all__ = [
    "ExecRequest",
    "FileNode",
    "actions",
    "broken_headers",
    "client_scripts",
    "environments",
    "exec_requests",
    "faults",
    "file_trees",
    "frames",
    "harmless_faults",
    "hostile_bytes",
    "hostile_frames",
    "inputs",
    "mutated_bytes",
    "starts",
    "stdin_scripts",
    "writes",
]
