"""The state machine of the test kit, with the same rules against both guests."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from trio_sandbox.testing.backends import RealBackend
from trio_sandbox.testing.exec_machine import ExecStateMachine
from trio_sandbox.testing.strategies import faults, harmless_faults

SIMULATED = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
REAL = settings(SIMULATED, max_examples=6, stateful_step_count=25, derandomize=True, database=None)


class WithDelays(ExecStateMachine):
    """Delays and disorder change nothing."""

    faults = harmless_faults()


class WithFaults(ExecStateMachine):
    """Whatever ends the machine is told to everybody, as what it is."""

    faults = faults()


class OnRealMachines(ExecStateMachine):
    backend = RealBackend({"image": "local/base", "memory": 256})


@pytest.mark.parametrize("machine", [ExecStateMachine, WithDelays, WithFaults])
def test_simulated(machine: type[ExecStateMachine]) -> None:
    run_state_machine_as_test(machine, settings=SIMULATED)


@pytest.mark.vm
def test_real() -> None:
    run_state_machine_as_test(OnRealMachines, settings=REAL)
