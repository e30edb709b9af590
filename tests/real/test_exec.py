"""One sandbox, many programs: what exec promises, in a real guest."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
import trio

from trio_sandbox import (
    ExecEventType,
    ExecFailedError,
    ExecTimeoutError,
    Rlimit,
    Sandbox,
    SandboxNotRunningError,
    Stdin,
    open_sandbox,
)
from trio_sandbox.relay.credit import WINDOW

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])]


async def python(sandbox: Sandbox, code: str, **options: Any) -> str:
    """Run Python in the guest and return what it printed."""
    output = await sandbox.exec("python3", ["-c", code], **options)
    assert output.success, output.stderr_text
    return output.stdout_text.strip()


async def test_what_a_program_sees_and_how_it_ends(warm: bool) -> None:
    """One boot for the many small promises, each under its own name."""
    async with open_sandbox("exec", image="local/base", warm=warm, env={"COLOUR": "red"}, hostname="hall") as sandbox:
        await its_own_machine(sandbox)
        await its_streams(sandbox)
        await its_end(sandbox)
        await its_surroundings(sandbox)
        await its_failures(sandbox)
        await its_limits(sandbox)
        await its_background(sandbox)
        await wrong_arguments(sandbox)


async def its_own_machine(sandbox: Sandbox) -> None:
    assert await sandbox.name == "exec"
    release = (await sandbox.exec("uname", ["-r"])).stdout_text.strip()
    assert release and release != os.uname().release
    assert await python(sandbox, "import os; print(os.uname().nodename)") == "hall"
    assert abs(float(await python(sandbox, "import time; print(time.time())")) - time.time()) < 5
    assert (await sandbox.shell("cat /proc/1/comm; ls /modules 2>/dev/null")).stdout_text.split() == ["init"]
    ids = (
        await sandbox.shell("cat /etc/machine-id; cat /etc/hostname; getent hosts localhost || cat /etc/hosts")
    ).stdout_text
    assert "hall" in ids and "localhost" in ids
    assert len(ids.split()[0]) == 32


async def its_streams(sandbox: Sandbox) -> None:
    output = await sandbox.shell("echo out; echo err >&2")
    assert (output.stdout_text, output.stderr_text) == ("out\n", "err\n")
    # No stdin is /dev/null: cat ends at once.
    assert (await sandbox.exec("cat")).stdout_bytes == b""
    assert (await sandbox.exec("cat", stdin="grüß\n")).stdout_text == "grüß\n"
    blob = os.urandom(3 * WINDOW + 17)
    assert (await sandbox.exec("cat", stdin=blob)).stdout_bytes == blob
    # A program that never reads its input ends all the same.
    assert (await sandbox.exec("true", stdin=blob)).success
    async with await sandbox.exec_stream("cat", stdin=Stdin.pipe()) as handle:
        sink = handle.take_stdin()
        assert sink is not None and handle.take_stdin() is None
        await sink.write(b"one ")
        events = [await handle.recv(), await handle.recv()]
        assert [event.event_type for event in events if event] == [ExecEventType.STARTED, ExecEventType.STDOUT]
        await sink.write(b"two")
        await sink.close()
        output = await handle.collect()
        assert output.stdout_bytes == b"two"
        assert await handle.collect() == output  # idempotent
        assert await handle.wait() == (0, True)


async def its_end(sandbox: Sandbox) -> None:
    for code in (0, 1, 7, 126, 255):
        assert (await sandbox.shell(f"exit {code}")).exit_code == code
    killed = await sandbox.shell("kill -TERM $$")
    assert (killed.exit_code, killed.signal, killed.success) == (128 + signal.SIGTERM, signal.SIGTERM, False)
    lookalike = await sandbox.shell("exit 143")
    assert (lookalike.exit_code, lookalike.signal) == (143, None)
    async with await sandbox.exec_stream("sleep", ["1000"]) as handle:
        await handle.recv()
        await handle.signal(signal.SIGINT)
        assert await handle.wait() == (128 + signal.SIGINT, False)


async def its_surroundings(sandbox: Sandbox) -> None:
    assert (await sandbox.shell("echo $COLOUR; pwd; id -un")).stdout_text.split() == ["red", "/", "root"]
    assert (await sandbox.exec("pwd", cwd="/usr/lib")).stdout_text == "/usr/lib\n"
    assert (
        await sandbox.shell("echo $COLOUR$SHAPE", env={"COLOUR": "blue", "SHAPE": "round"})
    ).stdout_text == "blueround\n"
    for user, seen in (
        ("nobody", "65534 65534"),
        ("65534", "65534"),
        ("nobody:daemon", "65534 1"),
        ("1000:1001", "1000 1001"),
    ):
        output = await sandbox.shell("id -u; id -g", user=user)
        assert output.stdout_text.split()[: len(seen.split())] == seen.split(), (user, output)
    assert (await sandbox.shell("ulimit -n", rlimits=[Rlimit.nofile(64)])).stdout_text == "64\n"
    assert (await sandbox.shell("ps -o stat= -p $$; cat /proc/self/oom_score_adj")).stdout_text.split()[-1] == "0"


async def its_failures(sandbox: Sandbox) -> None:
    await sandbox.shell("echo hi > /tmp/data; chmod 644 /tmp/data; printf 'junk' > /tmp/junk; chmod 755 /tmp/junk")
    for command, options, kind in (
        ("no-such-program", {}, "not_found"),
        ("/tmp/data", {}, "permission_denied"),
        ("/tmp/junk", {}, "not_executable"),
        ("true", {"cwd": "/no/such/folder"}, "bad_cwd"),
        ("true", {"user": "no-such-user"}, "user_setup_failed"),
        ("true", {"rlimits": [Rlimit.nofile(1 << 40)]}, "resource_limit"),
        ("true", {"args": ["x" * 200_000]}, "bad_args"),
        ("true", {"args": ["x" * 2_000_000]}, "bad_args"),
    ):
        with pytest.raises(ExecFailedError) as caught:
            await sandbox.exec(command, **options)
        assert caught.value.kind == kind, command


async def its_limits(sandbox: Sandbox) -> None:
    with pytest.raises(ExecTimeoutError) as caught:
        await sandbox.shell("echo begun; sleep 1000 & sleep 1000", timeout=0.5)
    assert caught.value.stdout == b"begun\n"
    with trio.move_on_after(0.5) as scope:
        await sandbox.shell("setsid sleep 1001 & sleep 1001")
    assert scope.cancelled_caught
    # Killed with all that they started, even what left their session.
    assert (await sandbox.shell("ps -eo args | grep -c '[s]leep 100'")).stdout_text == "0\n"


async def its_background(sandbox: Sandbox) -> None:
    began = trio.current_time()
    output = await sandbox.shell("(while sleep 0.05; do echo tick; date +%s > /tmp/alive; done) & echo started")
    assert output.stdout_text.startswith("started\n")
    assert trio.current_time() - began < 20
    # It was not killed by the end of its shell, nor by writing to a pipe that nobody reads.
    assert (await sandbox.shell("rm -f /tmp/alive; sleep 0.5; cat /tmp/alive")).success
    assert (await sandbox.shell("pkill -f '[s]leep 0.05'; true")).success


async def wrong_arguments(sandbox: Any) -> None:
    calls: tuple[tuple[Any, type[Exception]], ...] = (
        (lambda: sandbox.exec("true", "arg"), TypeError),
        (lambda: sandbox.exec("true", [1]), TypeError),
        (lambda: sandbox.exec("true", {"colour": 1}), TypeError),
        (lambda: sandbox.exec("", []), ValueError),
        (lambda: sandbox.exec("true", timeout=-1), ValueError),
        (lambda: sandbox.exec("true", stdin=5), TypeError),
        (lambda: sandbox.exec("true", cwd="relative"), ValueError),
        (lambda: sandbox.exec("true", tty="yes"), TypeError),
    )
    for call, error in calls:
        with pytest.raises(error):
            await call()
    assert (await sandbox.exec("sh", {"args": ["-c", "cat"], "stdin_data": b"older"})).stdout_bytes == b"older"


async def test_many_at_once_and_a_reader_that_stops_stalls_nobody(warm: bool) -> None:
    async with open_sandbox("busy", image="local/base", warm=warm) as sandbox:
        async with await sandbox.exec_stream("sh", ["-c", "yes"]) as stopped:  # nobody ever reads it
            results = {}

            async def run(number: int) -> None:
                results[number] = (await sandbox.shell(f"echo {number}; seq 20000 | tail -1")).stdout_text

            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(run, number)
            assert results == {number: f"{number}\n20000\n" for number in range(20)}
            big = await sandbox.shell("head -c 3000000 /dev/zero")
            assert len(big.stdout_bytes) == 3_000_000
            await stopped.kill()
            assert await stopped.wait() == (137, False)


async def test_stop_lets_the_block_go_on_with_a_handle_that_says_so(warm: bool) -> None:
    async with open_sandbox("stopping", image="local/base", warm=warm) as sandbox:
        script = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
        async with await sandbox.shell_stream(script) as handle:
            seen = [await handle.recv(), await handle.recv()]
            assert seen[1] is not None
            assert seen[1].data == b"ready\n"
            await sandbox.stop()
            output = await handle.collect()  # it ended in order before the machine did
            assert (output.exit_code, output.stdout_text) == (3, "asked\n")
        assert await sandbox.wait() == (0, True)
        with pytest.raises(SandboxNotRunningError):
            await sandbox.exec("true")
        await sandbox.stop()  # harmless
        await sandbox.kill()


async def test_a_guest_that_powers_itself_off_has_stopped(warm: bool) -> None:
    async with open_sandbox("leaving", image="local/base", warm=warm) as sandbox:
        with pytest.raises(SandboxNotRunningError):
            await sandbox.shell("sync; echo o > /proc/sysrq-trigger; sleep 1000")
        assert await sandbox.wait() == (0, True)


async def test_kill_is_immediate(warm: bool) -> None:
    async with open_sandbox("killed", image="local/base", warm=warm) as sandbox:
        began = trio.current_time()
        await sandbox.kill()
        assert await sandbox.wait() == (-9, False)
        assert trio.current_time() - began < 5
