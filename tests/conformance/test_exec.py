"""Programs: their streams, their ends, their surroundings."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import trio

from tests.conformance import scripts
from trio_sandbox import ExecEventType, ExecFailedError, ExecTimeoutError, Rlimit, Sandbox, Stdin

pytestmark = pytest.mark.anyio
BLOB = bytes(range(256)) * 4000


async def test_exit_codes(sandbox: Sandbox) -> None:
    for code, script in scripts.EXITS.items():
        output = await sandbox.shell(script)
        assert (output.exit_code, output.signal, output.success) == (code, None, code == 0)


async def test_an_end_by_a_signal(sandbox: Sandbox) -> None:
    output = await sandbox.shell(scripts.KILLS_ITSELF)
    assert (output.exit_code, output.signal, output.success) == (128 + signal.SIGTERM, signal.SIGTERM, False)


async def test_both_streams(sandbox: Sandbox) -> None:
    output = await sandbox.shell(scripts.BOTH_STREAMS)
    assert (output.stdout_text, output.stderr_text, output.held_open) == ("out\n", "err\n", False)
    assert output.pid is not None and output.pid > 1


async def test_standard_input(sandbox: Sandbox) -> None:
    assert (await sandbox.exec("cat")).stdout_bytes == b"", "none is /dev/null"
    assert (await sandbox.exec("cat", stdin="grüß\n")).stdout_text == "grüß\n"
    assert (await sandbox.exec("cat", stdin=BLOB)).stdout_bytes == BLOB
    assert (await sandbox.exec("true", stdin=BLOB)).success, "it need not be read"


async def test_events_come_in_their_order(sandbox: Sandbox) -> None:
    async with await sandbox.exec_stream("cat", stdin=Stdin.pipe()) as handle:
        sink = handle.take_stdin()
        assert sink is not None
        await sink.write(b"one")
        events = [await handle.recv(), await handle.recv()]
        await sink.close()
        events += [event async for event in handle]
    kinds = [event.event_type for event in events if event is not None]
    assert kinds == [ExecEventType.STARTED, ExecEventType.STDOUT, ExecEventType.EXITED]
    assert await handle.recv() is None
    assert await handle.wait() == (0, True)


async def test_a_program_that_closes_its_input_says_so(sandbox: Sandbox) -> None:
    async with await sandbox.shell_stream(scripts.CLOSES_STDIN, stdin=Stdin.pipe()) as handle:
        sink = handle.take_stdin()
        assert sink is not None
        await sink.write(b"x")
        async for event in handle:
            if event.event_type is ExecEventType.STDIN_ERROR:
                break
        with pytest.raises(BrokenPipeError):
            await sink.write(b"y")


async def test_signals(sandbox: Sandbox) -> None:
    async with await sandbox.shell_stream(scripts.TRAPS_TERM) as handle:
        await _ready(handle)
        await handle.signal(signal.SIGTERM)
        output = await handle.collect()
        assert (output.exit_code, output.stdout_text) == (3, "caught\n")
    async with await sandbox.exec_stream("sleep", ["1000"]) as handle:
        await handle.wait_until_started()
        await handle.signal(signal.SIGINT)
        assert await handle.wait() == (128 + signal.SIGINT, False)
    async with await sandbox.shell_stream(scripts.IGNORES_TERM) as handle:
        await _ready(handle)
        await handle.signal(signal.SIGTERM)
        await handle.kill()
        assert await handle.wait() == (128 + signal.SIGKILL, False)
        assert handle.exit is not None and handle.exit.signal == signal.SIGKILL


async def _ready(handle: Any) -> None:
    assert (await handle.recv()).event_type is ExecEventType.STARTED
    assert (await handle.recv()).data == b"ready\n"


async def test_a_background_process_holds_the_output(sandbox: Sandbox) -> None:
    with trio.fail_after(60):
        output = await sandbox.shell(scripts.LEAVES_A_DAEMON)
    assert (output.stdout_text, output.success, output.held_open) == ("started\n", True, True)


async def test_surroundings(sandbox: Sandbox) -> None:
    assert (await sandbox.shell(scripts.VARIABLES)).stdout_text == "red-\n"
    changed = await sandbox.shell(scripts.VARIABLES, env={"COLOUR": "blue", "SHAPE": "round"})
    assert changed.stdout_text == "blue-round\n"
    assert (await sandbox.exec("pwd", cwd="/tmp")).stdout_text == "/tmp\n"
    for user, ids in (
        ("nobody", "65534 65534"),
        ("nobody:daemon", "65534 1"),
        ("1000:1001", "1000 1001"),
        ("7777", "7777 0"),
    ):
        assert (await sandbox.shell(scripts.IDENTITY, user=user)).stdout_text.split() == ids.split(), user
    assert (await sandbox.shell(scripts.OPEN_FILES, rlimits=[Rlimit.nofile(64)])).stdout_text == "64\n"


async def test_why_a_program_cannot_be_started(sandbox: Sandbox) -> None:
    await sandbox.fs.write("/tmp/data", b"data", mode=0o644)
    await sandbox.fs.write("/tmp/junk", b"junk", mode=0o755)
    cases: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("no-such-program", {}, "not_found"),
        ("/no/such/program", {}, "not_found"),
        ("/tmp/data", {}, "permission_denied"),
        ("/tmp/junk", {}, "not_executable"),
        ("true", {"cwd": "/no/such/folder"}, "bad_cwd"),
        ("true", {"cwd": "/tmp/data"}, "bad_cwd"),
        ("true", {"user": "no-such-user"}, "user_setup_failed"),
        ("true", {"rlimits": [Rlimit.nofile(1 << 40)]}, "resource_limit"),
        ("true", {"args": ["x" * 200_000]}, "bad_args"),
        ("true", {"args": ["x" * 2_000_000]}, "bad_args"),
    )
    for command, options, kind in cases:
        with pytest.raises(ExecFailedError) as caught:
            await sandbox.exec(command, **options)
        assert caught.value.kind == kind, (command, options.keys())
        assert caught.value.errno > 0


async def test_a_timeout_keeps_the_output_and_leaves_nothing(sandbox: Sandbox) -> None:
    with pytest.raises(ExecTimeoutError) as caught:
        await sandbox.shell(scripts.BEGINS, timeout=1)
    assert caught.value.stdout == b"begun\n"
    async with await sandbox.shell_stream(scripts.IGNORES_TERM, timeout=1) as handle:
        with pytest.raises(ExecTimeoutError):
            await handle.wait()
        assert handle.exit is not None and handle.exit.timed_out


async def test_the_callers_deadline_is_a_cancellation(sandbox: Sandbox) -> None:
    with trio.move_on_after(1) as scope:
        await sandbox.shell(scripts.BEGINS)
    assert scope.cancelled_caught


async def test_output_that_nobody_reads_stalls_nobody_else(sandbox: Sandbox) -> None:
    async with await sandbox.exec_stream("yes") as stopped:
        results = {}

        async def one(number: int) -> None:
            results[number] = (await sandbox.exec("cat", stdin=f"{number}".encode() * 10_000)).stdout_bytes

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(one, number)
        assert results == {number: f"{number}".encode() * 10_000 for number in range(8)}
        await stopped.kill()
        assert await stopped.wait() == (137, False)


async def test_a_client_has_64_sessions(sandbox: Sandbox) -> None:
    handles = [await sandbox.exec_stream("sleep", ["1000"]) for _ in range(64)]
    with pytest.raises(ExecFailedError) as caught:
        await sandbox.exec("true")
    assert caught.value.kind == "too_many_sessions"
    async with trio.open_nursery() as nursery:
        for handle in handles:
            nursery.start_soon(handle.aclose)
    assert (await sandbox.exec("true")).success


async def test_a_detached_program_can_be_come_back_to(sandbox: Sandbox) -> None:
    async with await sandbox.shell_stream(scripts.TRAPS_TERM, detached=True) as handle:
        await _ready(handle)
        number = handle.session_id
    assert [info.id for info in await sandbox.sessions()] == [number]
    async with await sandbox.attach_session(number) as again:
        await again.signal(signal.SIGTERM)
        output = await again.collect()
        assert (output.exit_code, output.stdout_text) == (3, "ready\ncaught\n")
    with pytest.raises(ExecFailedError) as caught:
        await sandbox.attach_session(number)
    assert caught.value.kind == "no_such_session"
