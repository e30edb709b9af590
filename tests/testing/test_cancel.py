"""Every operation of the handle, cancelled at each of its checkpoints: afterwards nothing of it is left anywhere."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.cancelling import cancelled_at, cancelled_everywhere
from tests.client.ptys import Person, person
from trio_sandbox import ExecFailedError, Home, Sandbox, SandboxError, Stdin, connect
from trio_sandbox.runtime import Runtime
from trio_sandbox.testing import Program, SimulatedGuest, simulated_sandbox

pytestmark = pytest.mark.anyio
BLOB = bytes(range(256)) * 2000
PATIENCE = 20.0
"""Seconds of virtual time after which everything that is going to happen has."""

Operation = Callable[[Sandbox], Awaitable[object]]


def make_guest() -> SimulatedGuest:
    guest = SimulatedGuest()
    for name in ("a", "b", "dir/c", "dir/d/e"):
        guest.files.write(f"/tree/{name}", BLOB[:100])
    guest.files.write("/big", BLOB)

    @guest.script("ticking")
    async def ticking(program: Program) -> None:
        async def ticker(program: Program) -> None:
            for _ in range(10):
                await program.stdout.send("tick\n")
                await program.sleep(1)

        program.spawn(ticker)
        await program.sleep(3)

    @guest.program("emitter")
    async def emitter(program: Program) -> None:
        while True:
            await program.emit("tick", 1)
            await program.sleep(1)

    @guest.program("stubborn")
    async def stubborn(program: Program) -> None:
        program.ignore(signal.SIGTERM, signal.SIGINT)
        await program.sleep(1000)

    return guest


@attrs.define
class Scene:
    """A sandbox, and what is to be looked at after each operation."""

    sandbox: Sandbox
    guest: SimulatedGuest
    handle: Sandbox
    """The same, or a client of it behind a socket."""

    @property
    def runtime(self) -> Runtime:
        return cast(Runtime, self.sandbox._control)

    async def check_nothing_left(self) -> None:
        """No session at either end of the link, no process, no budget spent; and the sandbox is of use."""
        await trio.sleep(PATIENCE)
        await self.end_survivors()
        link, relay = self.runtime.link, self.runtime.relay
        assert link is not None
        assert relay._own is not None
        assert not link.mux.open_sessions
        assert not link._sinks
        assert len(link._pings) <= 1, "that of the watch over the agent"
        assert not link.working
        assert not relay._own.sessions
        assert relay._own.budget.sessions == 0
        assert not relay.survivors.channel.sessions
        assert not self.guest.open_sessions
        assert not self.guest.running
        for handle in (self.sandbox, self.handle):
            assert (await handle.exec("cat", stdin=b"still there")).stdout_bytes == b"still there"

    async def end_survivors(self) -> None:
        """What was started detached may live, but it must be known of."""
        known = await self.sandbox.sessions()
        assert len(self.guest.running) <= len(known)
        for info in known:
            assert not info.attached
            async with await self.sandbox.attach_session(info.id) as handle:
                await handle.kill()
                await handle.wait()


async def exec_stream(sandbox: Sandbox) -> None:
    async with await sandbox.exec_stream("cat", stdin=BLOB) as handle:
        async for _ in handle:
            pass


async def exec_left_early(sandbox: Sandbox) -> None:
    async with await sandbox.exec_stream("yes") as handle:
        for _ in range(5):
            await handle.recv()


async def exec_collect(sandbox: Sandbox) -> None:
    async with await sandbox.exec_stream("echo", ["words"]) as handle:
        assert (await handle.collect()).success
        assert (await handle.wait()) == (0, True)


async def exec_signals(sandbox: Sandbox) -> None:
    async with await sandbox.exec_stream("stubborn") as handle:
        await handle.wait_until_started()
        await handle.signal(signal.SIGTERM)
        await handle.kill()
        await handle.wait()


async def exec_terminal(sandbox: Sandbox) -> None:
    async with await sandbox.exec_stream("cat", stdin=Stdin.pipe(), tty=True) as handle:
        sink = handle.take_stdin()
        assert sink is not None
        await handle.resize(10, 20)
        await sink.write(b"typed\n")
        await handle.recv()
        await sink.close()
        await handle.wait()


async def exec_stdin(sandbox: Sandbox) -> None:
    async with await sandbox.exec_stream("cat", stdin=Stdin.pipe()) as handle:
        sink = handle.take_stdin()
        assert sink is not None
        await sink.write(BLOB[:200_000])
        await sink.close()
        await handle.collect()


async def exec_timeout(sandbox: Sandbox) -> None:
    with suppress(SandboxError):
        await sandbox.exec("stubborn", timeout=3)


async def detached(sandbox: Sandbox) -> None:
    async with await sandbox.exec_stream("sleep", ["1000"], detached=True) as handle:
        number = await handle.detach()
    async with await sandbox.attach_session(number) as again:
        await again.kill()
        await again.wait()


async def attach_to_nothing(sandbox: Sandbox) -> None:
    with suppress(ExecFailedError):
        await sandbox.attach_session(4_000_000)


async def subscribe(sandbox: Sandbox) -> None:
    async with sandbox.events("tick") as events:
        async with await sandbox.exec_stream("emitter"):
            for _ in range(3):
                await anext(events)


async def pause_and_resume(sandbox: Sandbox) -> None:
    try:
        await sandbox.pause()
        await sandbox.resume()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
            await sandbox.resume()


async def wait_a_little(sandbox: Sandbox) -> None:
    with trio.move_on_after(5):
        await sandbox.wait()


async def read_stream(sandbox: Sandbox) -> None:
    async with await sandbox.fs.read_stream("/big") as stream:
        async for _ in stream:
            pass


async def write_stream(sandbox: Sandbox) -> None:
    async with await sandbox.fs.write_stream("/streamed") as sink:
        await sink.write(BLOB)
        await sink.write(BLOB)


async def iterdir(sandbox: Sandbox) -> None:
    async with sandbox.fs.iterdir("/tree") as entries:
        async for _ in entries:
            pass


OPERATIONS: dict[str, Operation] = {
    "exec": lambda sb: sb.exec("echo", ["words"]),
    "exec with input": lambda sb: sb.exec("cat", stdin=BLOB),
    "exec that takes time": lambda sb: sb.exec("sleep", ["3"]),
    "exec that fails": lambda sb: _failing(sb.exec("no-such-program")),
    "exec with a timeout": exec_timeout,
    "exec on a terminal": exec_terminal,
    "shell with a daemon": lambda sb: sb.shell("ticking"),
    "exec_stream": exec_stream,
    "exec_stream left early": exec_left_early,
    "collect": exec_collect,
    "signal and kill": exec_signals,
    "stdin": exec_stdin,
    "detach and attach_session": detached,
    "attach_session to nothing": attach_to_nothing,
    "emit": lambda sb: sb.emit("name", {"a": 1}),
    "events": subscribe,
    "ping": lambda sb: sb.ping(),
    "sessions": lambda sb: sb.sessions(),
    "touch": lambda sb: sb.touch(),
    "pause and resume": pause_and_resume,
    "wait": wait_a_little,
    "metrics": lambda sb: sb.metrics(),
    "read": lambda sb: sb.fs.read("/big"),
    "read_stream": read_stream,
    "write": lambda sb: sb.fs.write("/written", BLOB),
    "write_stream": write_stream,
    "list": lambda sb: sb.fs.list("/tree"),
    "iterdir": iterdir,
    "stat": lambda sb: sb.fs.stat("/big"),
    "exists": lambda sb: sb.fs.exists("/nothing"),
    "mkdir": lambda sb: sb.fs.mkdir("/made/for/this"),
    "copy": lambda sb: sb.fs.copy("/tree", "/copied"),
    "chmod": lambda sb: sb.fs.chmod("/big", 0o600),
    "remove_dir": lambda sb: _failing(sb.fs.remove_dir("/copied")),
}


async def _failing(operation: Awaitable[object]) -> None:
    with suppress(SandboxError):
        await operation


@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_cancelled_anywhere_leaves_nothing(name: str) -> None:
    guest = make_guest()
    async with simulated_sandbox(guest=guest) as sandbox:
        scene = Scene(sandbox, guest, sandbox)
        steps = await cancelled_everywhere(lambda: OPERATIONS[name](sandbox), scene.check_nothing_left)
        assert steps or name == "attach_session to nothing", "what raises at once has no checkpoint"


@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_of_a_client_cancelled_anywhere_leaves_nothing(name: str, tmp_path: Path) -> None:
    guest = make_guest()
    address = tmp_path / "relay.sock"
    async with simulated_sandbox(guest=guest, listen=address) as sandbox, await connect(address) as client:
        scene = Scene(sandbox, guest, client)
        assert await cancelled_everywhere(lambda: OPERATIONS[name](client), scene.check_nothing_left)


@pytest.mark.parametrize("big", [False, True])
async def test_copies_between_host_and_guest_cancelled_anywhere_leave_nothing(tmp_path: Path, big: bool) -> None:
    guest = make_guest()
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(BLOB)
    path = source / "file" if big else source
    async with simulated_sandbox(guest=guest) as sandbox:
        scene = Scene(sandbox, guest, sandbox)

        async def there_and_back() -> None:
            target = tmp_path / "target"
            await sandbox.fs.copy_from_host(path, "/there")
            await sandbox.fs.copy_to_host("/there", target)

        async def check() -> None:
            await scene.check_nothing_left()
            left = {entry.name for entry in tmp_path.iterdir()}
            assert left <= {"source", "target"}, "a copy appears whole or not at all"
            if (target := tmp_path / "target").is_file():
                target.unlink()
            elif target.exists():
                assert (target / "file").read_bytes() == BLOB
                (target / "file").unlink()
                target.rmdir()

        await cancelled_everywhere(there_and_back, check)


@pytest.mark.parametrize("remote", [False, True])
async def test_an_attach_cancelled_anywhere_leaves_nothing(remote: bool, tmp_path: Path) -> None:
    guest = make_guest()
    address = tmp_path / "relay.sock"
    async with simulated_sandbox(guest=guest, listen=address) as sandbox:
        handle = await connect(address) if remote else sandbox
        scene = Scene(sandbox, guest, handle)
        step, reached = 1, True

        async def attach(somebody: Person) -> None:
            assert await handle.attach("cat", terminal=somebody.terminal) == 0

        while reached:
            with person() as somebody:
                before = somebody.modes
                somebody.type(b"typed\n\x04")
                reached = await cancelled_at(step, partial(attach, somebody), of_all_tasks=True)
                assert somebody.modes == before
                await scene.check_nothing_left()
            step += 1
        assert step > 10
        if remote:
            await handle.detach()


ENDS: dict[str, Operation] = {
    "stop": lambda sb: sb.stop(),
    "stop at once": lambda sb: sb.stop(0),
    "stop_and_wait": lambda sb: sb.stop_and_wait(),
    "kill": lambda sb: sb.kill(),
    "drain": lambda sb: sb.drain(5),
}


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("name", ENDS)
async def test_an_end_that_was_asked_for_comes_though_its_call_was_cancelled(
    name: str, remote: bool, tmp_path: Path
) -> None:
    step, reached, ended = 1, True, 0
    while reached:
        guest = make_guest()
        address = tmp_path / "relay.sock"
        async with simulated_sandbox(guest=guest, listen=address) as sandbox:
            handle = await connect(address) if remote else sandbox
            async with await sandbox.exec_stream("stubborn") as program:
                await program.wait_until_started()
                reached = await cancelled_at(step, lambda handle=handle: ENDS[name](handle))  # type: ignore[misc]
                with trio.move_on_after(60) as scope:
                    await sandbox.wait()
                ended += not scope.cancelled_caught
                if scope.cancelled_caught:
                    assert not ended, "once it has been asked for, it comes"
                    await sandbox.exec("true")
            if remote:
                await handle.detach()
        step += 1
        assert not guest.running
    assert ended


async def test_a_connection_cancelled_anywhere_takes_no_place(tmp_path: Path) -> None:
    address = tmp_path / "relay.sock"
    async with simulated_sandbox(listen=address) as sandbox:
        relay = cast(Runtime, sandbox._control).relay

        async def use() -> None:
            async with await connect(address) as client:
                await client.ping()

        async def check() -> None:
            await trio.sleep(PATIENCE)
            assert not relay.transports
            assert relay.admission.clients.used == 1

        assert await cancelled_everywhere(use, check) > 3


async def test_a_control_request_cancelled_anywhere_takes_no_place(tmp_path: Path) -> None:
    home, address = Home(tmp_path / "home"), tmp_path / "relay.sock"
    async with simulated_sandbox(home=home, listen=address) as sandbox:
        runtime = cast(Runtime, sandbox._control)
        relay, record = runtime.relay, runtime.record
        assert record is not None
        handle = await Sandbox.get("simulated", home=home)

        async def use() -> None:
            await handle.pause()
            await handle.resume()
            await handle.metrics()

        async def check() -> None:
            await wait_all_tasks_blocked()
            await record.settled()  # a thread writes it, for which virtual time does not wait
            await trio.sleep(PATIENCE)
            assert not relay.transports
            assert relay.admission.controls.used == 0
            await handle.resume()
            assert (await sandbox.exec("true")).success

        assert await cancelled_everywhere(use, check) > 3
