"""The options of an exec: refused by name before anything is sent, and exact on the wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.client.options import MAX_TIMEOUT_MS, ExecOptions, Stdin, StdinMode, exec_request
from trio_sandbox.client.rlimits import Rlimit
from trio_sandbox.testing.strategies import environments


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
        (lambda: build(rlimits=[Rlimit.cpu(1), Rlimit.cpu(2)]), ValueError, "cpu is given twice"),
        (lambda: build(rlimits=Rlimit.cpu(1)), TypeError, "rlimits must be a list"),
        (lambda: build(tty=1), TypeError, "tty must be a bool, not int"),
        (lambda: build({"tty": "yes"}), TypeError, "tty must be a bool, not str"),
        (lambda: build({"tty": True}, tty=True), TypeError, "tty is given twice"),
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
        assert milliseconds / 1000 >= min(timeout, MAX_TIMEOUT_MS / 1000)


def test_a_program_on_a_terminal() -> None:
    request = exec_request("x", build(tty=True), base_env={"A": "1"}, workdir="/", user="")
    assert (request.tty, request.rows, request.cols, request.stdin) == (True, 24, 80, False)
    assert request.env == (b"A=1", b"TERM=xterm-256color")
    assert exec_request("x", build({"tty": True}), base_env={}, workdir="/", user="").tty
    sized = exec_request("x", build(tty=True), base_env={}, workdir="/", user="", size=(50, 132), term="vt100")
    assert (sized.rows, sized.cols, sized.env) == (50, 132, (b"TERM=vt100",))


@pytest.mark.parametrize("where", ["sandbox", "call"])
def test_somebody_s_own_terminal_type_stays(where: str) -> None:
    given = {"TERM": "dumb"}
    options = build(tty=True, env=given if where == "call" else {})
    base = given if where == "sandbox" else {}
    assert exec_request("x", options, base_env=base, workdir="/", user="").env == (b"TERM=dumb",)


def test_no_terminal_has_no_type() -> None:
    request = exec_request("x", build(), base_env={}, workdir="/", user="")
    assert (request.tty, request.env) == (False, ())


def test_what_the_caller_cannot_change_is_not_copied() -> None:
    data = bytes(1 << 20)
    assert build(stdin=data).stdin.data is data
    assert build(stdin=Stdin.bytes(data)).stdin.data is data
    changing = bytearray(b"before")
    stdin = build(stdin=changing).stdin
    changing[:] = b"after!"
    assert stdin.data == b"before"
    assert build(stdin=memoryview(b"abcdef")[::2]).stdin.data == b"ace"


@given(base=environments(), call=environments(), tty=st.booleans())
def test_the_environment_is_the_sandboxs_then_the_calls_then_the_terminals(
    base: dict[str, str], call: dict[str, str], tty: bool
) -> None:
    request = exec_request("x", build(env=call, tty=tty), base_env=base, workdir="/", user="")
    names = [word.split(b"=", 1)[0] for word in request.env]
    assert len(set(names)) == len(names)
    expected = ({"TERM": "xterm-256color"} if tty else {}) | base | call
    assert dict(word.decode().split("=", 1) for word in request.env) == expected


KEYWORDS = {
    "cwd": st.sampled_from(["/", "/tmp", "tmp", "", 5]),
    "user": st.sampled_from(["root", "1:2", "", "a\0b", 5]),
    "timeout": st.one_of(st.floats(), st.integers(), st.booleans(), st.text(max_size=2)),
    "stdin": st.one_of(st.binary(max_size=4), st.text(max_size=4), st.integers()),
    "tty": st.one_of(st.booleans(), st.integers()),
    "env": st.one_of(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2), st.text(max_size=2)),
    "args": st.one_of(st.lists(st.one_of(st.text(max_size=3), st.integers()), max_size=3), st.text(max_size=3)),
    "rlimits": st.one_of(st.lists(st.sampled_from([Rlimit.cpu(1), Rlimit.core(0)]), max_size=3), st.integers()),
}


@given(st.fixed_dictionaries({}, optional=KEYWORDS))
def test_the_older_dict_and_keywords_mean_the_same(options: dict[str, Any]) -> None:
    """Whatever is given, either way gives the same options or the same refusal, and nothing else is raised."""
    keywords = {key: value for key, value in options.items() if key != "args"}

    def outcome(args: Any, **given: Any) -> object:
        try:
            built = build(args, **given)
            request = exec_request("prog", built, base_env={}, workdir="/", user="")
        except (TypeError, ValueError) as error:
            return type(error), str(error)
        assert 0 <= request.timeout_ms <= MAX_TIMEOUT_MS
        return request, built.stdin

    assert outcome(options.get("args"), **keywords) == outcome(options)
