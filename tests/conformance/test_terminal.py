"""Programs on a terminal."""

from __future__ import annotations

import signal

import pytest

from tests.conformance import scripts
from trio_sandbox import ExecHandle, Sandbox, Stdin

pytestmark = pytest.mark.anyio


async def test_what_is_a_terminal(sandbox: Sandbox) -> None:
    assert (await sandbox.shell(scripts.IS_A_TERMINAL)).stdout_text == "no\n"
    output = await sandbox.shell(scripts.IS_A_TERMINAL, tty=True)
    assert (output.stdout_text, output.stderr_bytes) == ("yes\r\n", b"")
    assert (await sandbox.shell(scripts.BOTH_STREAMS, tty=True)).stdout_text == "out\r\nerr\r\n", "there is one screen"


async def test_what_is_typed_is_echoed_and_read_by_lines(sandbox: Sandbox) -> None:
    output = await sandbox.exec("cat", stdin=b"line\n", tty=True)
    assert output.stdout_text == "line\r\nline\r\n"
    assert output.success


async def test_a_terminal_has_a_size_that_changes(sandbox: Sandbox) -> None:
    async with await sandbox.shell_stream(scripts.TERMINAL_SIZE, stdin=Stdin.pipe(), tty=True) as handle:
        sink = handle.take_stdin()
        assert sink is not None
        assert await _until(handle, b"24 80\r\n") == b"24 80\r\n"
        await handle.resize(10, 132)
        await sink.write(b"\n")
        assert (await handle.collect()).stdout_bytes == b"\r\n10 132\r\n"


async def test_control_c_interrupts(sandbox: Sandbox) -> None:
    async with await sandbox.exec_stream("cat", stdin=Stdin.pipe(), tty=True) as handle:
        sink = handle.take_stdin()
        assert sink is not None
        await sink.write(b"begun\n")
        await _until(handle, b"begun\r\nbegun\r\n")
        await sink.write(b"\x03")
        output = await handle.collect()
    assert output.signal == signal.SIGINT


async def _until(handle: ExecHandle, end: bytes) -> bytes:
    """What comes up to `end`."""
    seen = b""
    while not seen.endswith(end):
        event = await handle.recv()
        assert event is not None, seen
        seen += event.data or b""
    return seen
