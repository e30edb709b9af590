"""What the helpers raise on purpose, beside what everything raises (`trio_sandbox.errors`). No I/O."""

from __future__ import annotations

from trio_sandbox.client.outcome import ExecOutput
from trio_sandbox.errors import NamedSandboxError, SandboxError


class UnsuccessfulError(SandboxError):
    """A run of `race` returned the ExecOutput of a program whose exit code is not 0: `output`."""

    def __init__(self, output: ExecOutput) -> None:
        self.output = output
        super().__init__(f"the program ended with exit code {output.exit_code}")


class NotReadyError(NamedSandboxError, TimeoutError):
    """`wait_until_ready` has waited `timeout` seconds. problem: what the last probe said."""

    def __init__(self, name: str, timeout: float, problem: str) -> None:
        super().__init__(name)
        self.timeout = timeout
        self.problem = problem
        self.args = (f"not ready within {timeout:g} s in sandbox {name!r}: {problem}",)


class RestartLimitError(NamedSandboxError):
    """A supervised sandbox was made again `restarts` times within `window` seconds, and ended once more: its cause."""

    def __init__(self, name: str, restarts: int, window: float) -> None:
        super().__init__(name)
        self.restarts = restarts
        self.window = window
        self.args = (f"gave up sandbox {name!r}, after {restarts} restarts within {window:g} s",)
