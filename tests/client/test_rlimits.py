"""Resource limits: every one that the kernel has, by its number, and none that cannot be."""

from __future__ import annotations

import resource
from typing import Any

import pytest

from trio_sandbox.client.options import ExecOptions, exec_request
from trio_sandbox.client.rlimits import INFINITY, NUMBERS, Rlimit, RlimitResource


def test_the_numbers_are_the_kernels() -> None:
    assert list(NUMBERS.values()) == list(range(16))
    for name in set(RlimitResource) - {RlimitResource.LOCKS}:  # which the library does not know
        assert getattr(resource, f"RLIMIT_{name.upper()}") == NUMBERS[name]


@pytest.mark.parametrize("name", [name for name in RlimitResource if name is not RlimitResource.AS])
def test_a_constructor_for_each(name: RlimitResource) -> None:
    assert getattr(Rlimit, name)(5) == Rlimit(name, 5, 5)


def test_on_the_wire() -> None:
    limits = [Rlimit.as_(soft=1, hard=2), Rlimit.nofile(INFINITY), Rlimit(RlimitResource.RTTIME, 0, INFINITY)]
    request = exec_request("x", ExecOptions.build("x", None, {"rlimits": limits}), base_env={}, workdir="/", user="")
    assert request.rlimits == ((9, 1, 2), (7, -1, -1), (15, 0, -1))


def test_a_resource_by_its_name() -> None:
    by_name: Any = "nofile"
    assert Rlimit(by_name, 1, 1) == Rlimit.nofile(1)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Rlimit.cpu(-2), ValueError, "cpu: -2 is not a limit"),
        (lambda: Rlimit.cpu(1 << 63), ValueError, "is not a limit"),
        (lambda: Rlimit.as_(soft=2, hard=1), ValueError, "as: the soft limit 2 is above the hard one 1"),
        (lambda: Rlimit.as_(soft=INFINITY, hard=1), ValueError, "above the hard one"),
        (lambda: Rlimit.nofile(True), TypeError, "must be int, not bool"),
        (lambda: Rlimit.nofile(1.5), TypeError, "must be int, not float"),  # type: ignore[arg-type]
        (lambda: Rlimit("colour", 1, 1), ValueError, "colour"),
    ],
)
def test_refusals(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
