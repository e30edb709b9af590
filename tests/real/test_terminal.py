"""Terminals, detaching and deadlines, in a real guest."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from tests.client.ptys import Person, person
from trio_sandbox import (
    AttachResult,
    ExecEventType,
    ExecFailedError,
    ExecHandle,
    ExecTimeoutError,
    Sandbox,
    Stdin,
    connect,
    open_sandbox,
)

pytestmark = pytest.mark.anyio

PATIENCE = 60


async def read_until(handle: ExecHandle, words: bytes) -> bytes:
    """The output up to and with the piece that completes `words`."""
    seen = b""
    while words not in seen:
        event = await handle.recv()
        assert event is not None, seen
        seen += event.data or b""
    return seen


class Attached:
    """A person attached to a program in a task of its own."""

    def __init__(self, somebody: Person) -> None:
        self.somebody = somebody
        self.result: AttachResult | None = None

    def outcome(self) -> tuple[int, bool]:
        assert self.result is not None
        return int(self.result), self.result.detached


@asynccontextmanager
async def attached(
    sandbox: Sandbox, somebody: Person, cmd: str | int, args: list[str] | None = None
) -> AsyncIterator[Attached]:
    """The end of the block waits for the end of the attach."""
    found = Attached(somebody)
    somebody.seen.clear()

    async def attach() -> None:
        found.result = await sandbox.attach(cmd, args, terminal=somebody.terminal)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attach)
            yield found


async def test_programs_on_terminals() -> None:
    async with open_sandbox("terminals", image="local/base") as sandbox:
        with trio.fail_after(PATIENCE):
            await what_they_see(sandbox)
            await what_they_are_typed(sandbox)
            await their_size(sandbox)
            await all_of_much_output(sandbox)


async def what_they_see(sandbox: Sandbox) -> None:
    output = await sandbox.shell("tty; stty size; echo $TERM; echo err >&2; ps -o tty= -p $$", tty=True)
    assert output.stdout_text.split() == ["/dev/pts/0", "24", "80", "xterm-256color", "err", "pts/0"]
    assert (output.stderr_bytes, output.exit_code) == (b"", 0)
    code = "import os; print([os.isatty(fd) for fd in (0, 1, 2)], os.getpid() == os.getsid(0) == os.tcgetpgrp(0))"
    assert (await sandbox.exec("python3", ["-c", code], tty=True)).stdout_text == "[True, True, True] True\r\n"
    assert (await sandbox.shell("tty", env={"TERM": "dumb"})).stdout_text == "not a tty\n"
    nobody = await sandbox.shell("tty; stty size", tty=True, user="nobody")
    assert nobody.stdout_text.endswith("24 80\r\n"), nobody


async def what_they_are_typed(sandbox: Sandbox) -> None:
    output = await sandbox.exec("cat", tty=True, stdin="typed\n")
    assert output.stdout_text == "typed\r\ntyped\r\n"  # the echo, then what cat says; its end of file was typed too
    async with await waits_for(sandbox, "SIGINT", stdin=Stdin.pipe()) as handle:
        sink = handle.take_stdin()
        assert sink is not None
        await sink.write(b"\x03")
        assert (await read_until(handle, b")\r\n")).endswith(b"80 24 (SIGINT)\r\n")  # its echo may be flushed away


async def waits_for(sandbox: Sandbox, name: str, **options: Any) -> ExecHandle:
    """A program on a terminal that waits for a signal, and then tells the terminal's columns, rows and the signal."""
    code = (
        "import os, signal\n"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [signal.{name}])\n"
        "print('ready', flush=True)\n"
        f"number = signal.sigwait([signal.{name}])\n"
        "print(*os.get_terminal_size(), f'({number.name})')"
    )
    handle = await sandbox.exec_stream("python3", ["-c", code], tty=True, **options)
    await read_until(handle, b"ready\r\n")
    return handle


async def their_size(sandbox: Sandbox) -> None:
    """A resize goes past a receive that waits, and the program hears of it."""
    async with await waits_for(sandbox, "SIGWINCH") as handle:
        seen = []

        async def receive() -> None:
            seen.append(await read_until(handle, b")\r\n"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await handle.resize(50, 132)
        assert seen == [b"132 50 (SIGWINCH)\r\n"]


async def all_of_much_output(sandbox: Sandbox) -> None:
    output = await sandbox.shell("seq 100000", tty=True)
    assert output.stdout_bytes == b"".join(b"%d\r\n" % number for number in range(1, 100_001))


async def test_a_person_attaches_leaves_and_comes_back() -> None:
    async with open_sandbox("attached", image="local/base") as sandbox:
        with person(30, 100) as somebody:
            async with attached(sandbox, somebody, "sh") as scene:
                somebody.type(b"stty size; echo $TERM; echo so''on\r")
                await somebody.wait_to_see(b"soon\r\n")
                assert b"30 100\r\n" in somebody.seen
                assert os.environ.get("TERM", "xterm-256color").encode() + b"\r\n" in somebody.seen
                somebody.resize(40, 120)
                os.kill(os.getpid(), signal.SIGWINCH)
                somebody.type(b"until stty size | grep 40; do :; done\r")
                await somebody.wait_to_see(b"40 120\r\n")
                somebody.type(b"trap 'echo dra''wn' WINCH; echo se''t\r")
                await somebody.wait_to_see(b"set\r\n")
                somebody.type(b"\x1d")
            assert scene.outcome() == (0, True)
            result = scene.result
            assert result is not None
            assert f"[detached from session {result.session_id}]".encode() in somebody.look()
            assert not somebody.is_raw()
            (info,) = await sandbox.sessions()
            assert (info.id, info.tty, info.attached) == (result.session_id, True, False)
            async with attached(sandbox, somebody, result.session_id) as scene:
                somebody.type(b"\r")  # this shell looks at its traps between two lines
                await somebody.wait_to_see(b"drawn\r\n")  # though the size is what it was
                somebody.type(b"remembered=yes; (sleep 0.3; echo wo''ken) & \r")
                somebody.type(b"\x1d")
            assert scene.outcome() == (0, True)
            somebody.resize(20, 60)
            async with attached(sandbox, somebody, result.session_id) as scene:
                await somebody.wait_to_see(b"40 120\r\n")  # replayed
                await somebody.wait_to_see(b"woken\r\n")  # or said by now
                somebody.type(b"stty size; echo $remembered; exit 7\r")
            assert scene.outcome() == (7, False)
            assert b"20 60\r\n" in somebody.look() and b"yes\r\n" in somebody.seen
            assert not await sandbox.sessions()
            with pytest.raises(ExecFailedError) as caught:
                await sandbox.attach(result.session_id, terminal=somebody.terminal)
            assert caught.value.kind == "no_such_session"


async def test_the_other_ends_of_an_attach() -> None:
    async with open_sandbox("ends", image="local/base") as sandbox:
        with person() as somebody:
            with pytest.raises(ExecFailedError) as caught:
                await sandbox.attach("no-such-program", terminal=somebody.terminal)
            assert caught.value.kind == "not_found"
            assert not somebody.is_raw()
            with trio.CancelScope() as scope:
                async with attached(sandbox, somebody, "sh", ["-c", "echo up; sleep 1001"]):
                    await somebody.wait_to_see(b"up")
                    scope.cancel()
            assert not somebody.is_raw()
            async with attached(
                sandbox, somebody, "sh", ["-c", "trap 'exit 4' HUP; echo up; while :; do sleep 0.1; done"]
            ) as scene:
                await somebody.wait_to_see(b"up")
                somebody.hang_up()
            assert scene.outcome() == (4, False)
        assert (await sandbox.shell("ps -eo args | grep -c '[s]leep 1001'")).stdout_text == "0\n"


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
async def test_the_same_over_a_connection(backend: str, tmp_path: Path) -> None:
    """Another client, which may live in another process and on another event loop; here in another thread."""
    address = str(tmp_path / "relay.sock")

    async def client(master: Person) -> tuple[int, int, int]:
        async with await connect(address) as sandbox:
            number = (await sandbox.attach("sh", terminal=master.terminal)).session_id
        async with await connect(address) as sandbox:
            code = await sandbox.attach(number, terminal=master.terminal)
            output = await sandbox.exec("sh", ["-c", "tty"], tty=True, timeout=20.0)
        return number, code, output.exit_code

    async with open_sandbox("served", image="local/base", listen=address) as sandbox:
        with person(30, 100) as somebody, trio.fail_after(PATIENCE):
            results = []

            async def run() -> None:
                run_client = partial(anyio.run, client, somebody, backend=backend)
                results.append(await trio.to_thread.run_sync(run_client))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                somebody.type(b"stty size; x=ke''pt\r")
                await somebody.wait_to_see(b"30 100\r\n")
                somebody.type(b"\x1d")
                await somebody.wait_to_see(b"[detached from session")
                while not somebody.is_raw():
                    await trio.sleep(0.01)
                somebody.type(b"echo $x; exit 9\r")
                await somebody.wait_to_see(b"kept\r\n")
            (result,) = results
            assert result[1:] == (9, 0)
            assert not await sandbox.sessions()


async def test_programs_that_survive_their_handles() -> None:
    async with open_sandbox("survivors", image="local/base") as sandbox:
        with trio.fail_after(PATIENCE):
            with trio.move_on_after(1) as scope:  # is no deadline of what is detached
                script = "echo early; read line; echo got $line; exit 3"
                async with await sandbox.shell_stream(script, stdin=Stdin.pipe(), detached=True) as handle:
                    number = handle.session_id
                    await trio.sleep_forever()
            assert scope.cancelled_caught
            await trio.sleep(0.5)
            async with await sandbox.attach_session(number) as handle:
                with pytest.raises(ExecFailedError) as caught:
                    await sandbox.attach_session(number)
                assert caught.value.kind == "session_busy"
                await read_until(handle, b"early\n")
                assert await handle.detach() == number
            async with await sandbox.attach_session(number) as handle:
                sink = handle.take_stdin()
                assert sink is not None
                await sink.write(b"this\n")
                output = await handle.collect()
                assert (output.exit_code, output.stdout_text) == (3, "early\ngot this\n")


async def test_deadlines_in_the_guest() -> None:
    async with open_sandbox("deadlines", image="local/base") as sandbox:
        with trio.fail_after(PATIENCE):
            with trio.move_on_after(0.5):
                abandoned = await sandbox.exec_stream("sleep", ["1002"])
                kept = await sandbox.exec_stream("sleep", ["1003"])
            async with kept:
                await until(sandbox, "1002", lambda count: count == 0)
                assert (await sandbox.shell("ps -eo args | grep -c '[s]leep 1003'")).stdout_text == "1\n"
                await kept.kill()
            assert await abandoned.wait() == (137, False)


async def until(sandbox: Sandbox, mark: str, wanted: Callable[[int], bool]) -> None:
    while not wanted(int((await sandbox.shell(f"ps -eo args | grep -c '[s]leep {mark}'")).stdout_text)):
        await trio.sleep(0.05)


async def test_the_facts_of_an_end() -> None:
    async with open_sandbox("facts", image="local/base") as sandbox:
        with trio.fail_after(PATIENCE):
            code = "import os, time; b = bytearray(40 << 20)\nwhile time.process_time() < 0.3: pass\nprint(os.getpid())"
            output = await sandbox.exec("python3", ["-c", code])
            assert output.pid == int(output.stdout_text)
            assert output.usage.user_time_s + output.usage.system_time_s >= 0.3
            assert output.usage.max_rss_bytes > 40 << 20
            assert not output.held_open and not output.core_dumped
            assert (await sandbox.shell("sleep 1004 & true")).held_open
            async with await sandbox.shell_stream("echo said; sleep 1005", timeout=2.0) as handle:
                for _ in range(2):
                    with pytest.raises(ExecTimeoutError) as caught:
                        await handle.wait()
                    assert caught.value.stdout == b"said\n"
                assert handle.exit is not None and handle.exit.timed_out
            async with await sandbox.exec_stream("sleep", ["1006"]) as handle:
                event = await handle.recv()
                assert event is not None and event.event_type is ExecEventType.STARTED
                assert handle.pid == event.pid
                await handle.signal(signal.SIGTERM)
                assert await handle.wait() == (143, False)
                assert handle.exit is not None and handle.exit.signal == signal.SIGTERM
