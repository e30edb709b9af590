"""The options of an exec: refused by name before anything is sent, and exact on the wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.client.options import ExecOptions, Rlimit, RlimitResource, Stdin, StdinMode, exec_request
from trio_sandbox.errors import UnsupportedError


def build(args: Any = None, cmd: Any = "prog", **options: Any) -> ExecOptions:
    return ExecOptions.build(cmd, args, options)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: build("-x"), TypeError, "args must be a list of strings, not str"),
        (lambda: build(b"-x"), TypeError, "args must be a list of strings, not bytes"),
        (lambda: build([1]), TypeError, "not of int"),
        (lambda: build(["a\0b"]), ValueError, "NUL"),
        (lambda: build(cmd=""), ValueError, "cmd must not be empty"),
        (lambda: build(cmd=5), TypeError, "cmd must be str, not int"),
        (lambda: build({"colour": 1}), TypeError, "unknown exec option: colour"),
        (lambda: build({"cwd": "/"}, cwd="/"), TypeError, "given twice"),
        (lambda: build(cwd="tmp"), ValueError, "absolute"),
        (lambda: build(env={"A": 1}), TypeError, "env"),
        (lambda: build(timeout=-1), ValueError, "timeout must be non-negative"),
        (lambda: build(timeout=True), TypeError, "timeout must be a number"),
        (lambda: build(timeout=float("nan")), ValueError, "timeout"),
        (lambda: build(stdin=3), TypeError, "stdin must be Stdin, bytes or str"),
        (lambda: build(rlimits=[("nofile", 1, 1)]), TypeError, "rlimits"),
        (lambda: build(rlimits=[Rlimit(RlimitResource.CPU, -2, 0)]), ValueError, "rlimits"),
        (lambda: build(tty=True), UnsupportedError, "tty"),
        (lambda: build({"tty": True}), UnsupportedError, "tty"),
    ],
)
def test_refusals(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_the_older_options_dict() -> None:
    options = build({"args": ["-c", "x"], "cwd": "/w", "stdin_data": b"in", "timeout": 2})
    assert (options.args, options.cwd, options.stdin, options.timeout) == (("-c", "x"), "/w", Stdin.bytes(b"in"), 2.0)


def test_stdin_forms() -> None:
    assert build().stdin.mode is StdinMode.NULL
    assert build(stdin="ü").stdin.data == "ü".encode()
    assert build(stdin=bytearray(b"x")).stdin == Stdin.bytes(b"x")
    assert build(stdin=Stdin.pipe()).stdin.mode is StdinMode.PIPE


def test_the_request() -> None:
    options = build(("a", "\udcff"), env={"B": "2", "C": "3"}, rlimits=[Rlimit.as_(soft=1, hard=2)], timeout=0.0001)
    request = exec_request("prog", options, base_env={"A": "1", "B": "1"}, workdir="/w", user="u")
    assert request.argv == (b"prog", b"a", b"\xff")
    assert request.env == (b"A=1", b"B=2", b"C=3")
    assert (request.cwd, request.user, request.stdin) == ("/w", "u", False)
    assert request.rlimits == ((9, 1, 2),)
    assert request.timeout_ms == 1  # 0 would be "none"


@given(st.floats(min_value=0, allow_nan=False))
def test_a_timeout_is_never_shortened_nor_lost(timeout: float) -> None:
    options = build(timeout=timeout)
    milliseconds = exec_request("x", options, base_env={}, workdir="/", user="").timeout_ms
    if options.timeout is None:
        assert timeout == float("inf")
        assert milliseconds == 0
    else:
        assert milliseconds >= 1
        assert milliseconds / 1000 >= min(timeout, 1e12)
