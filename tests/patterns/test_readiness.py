from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.cancelling import cancelled_everywhere
from trio_sandbox import (
    NotReadyError,
    Sandbox,
    SandboxCrashedError,
    exec_probe,
    file_probe,
    port_probe,
    unix_socket_probe,
    wait_until_ready,
)
from trio_sandbox.patterns.listening import has_path_untrusted, has_port_untrusted
from trio_sandbox.patterns.readiness import Probe
from trio_sandbox.testing import Program, SimulatedGuest, simulated_sandbox

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1068 1 0
   1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 1069 1 0
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00
"""
UNIX = """\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01  1067 /run/with space.sock
0000000000000000: 00000003 00000000 00000100 0001 03  1068 /run/connected.sock
0000000000000000: 00000002 00000000 00010000 0001 01  1069 @abstract
0000000000000000: 00000002 00000000 00010000 0001 01  1070
"""


def test_the_tables_of_the_kernel_are_understood() -> None:
    assert [port for port in range(1, 65_536) if has_port_untrusted(TCP + TCP6, port)] == [0x50, 0x1F90]
    assert has_path_untrusted(UNIX, "/run/with space.sock") and has_path_untrusted(UNIX, "@abstract")
    assert not has_path_untrusted(UNIX, "/run/connected.sock") and not has_path_untrusted(UNIX, "")


@given(st.text(alphabet=" 0123456789AFx:\n_-", max_size=200))
def test_no_table_raises_anything(table: str) -> None:
    has_port_untrusted(table, 80)
    has_path_untrusted(table, "/run/a")


def after(seconds: float, do: Callable[[SimulatedGuest], None]) -> Callable[[SimulatedGuest], None]:
    """A guest that does something later."""

    def add(guest: SimulatedGuest) -> None:
        @guest.program("later")
        async def later(program: Program) -> None:
            await program.sleep(seconds)
            do(guest)

    return add


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("probe", "do"),
    [
        (file_probe("/run/ready"), lambda guest: guest.files.write("/run/ready", "")),
        (port_probe(8080), lambda guest: guest.files.write("/proc/net/tcp", TCP)),
        (port_probe(80), lambda guest: guest.files.write("/proc/net/tcp6", TCP6)),
        (unix_socket_probe("@abstract"), lambda guest: guest.files.write("/proc/net/unix", UNIX)),
        (exec_probe("check"), lambda guest: guest.files.write("/run/ready", "")),
    ],
    ids=["file", "port", "port6", "unix", "exec"],
)
async def test_it_returns_when_the_probe_is_content(probe: Probe, do: Callable[[SimulatedGuest], None]) -> None:
    guest = SimulatedGuest()
    after(5.5, do)(guest)

    @guest.program("check")
    async def check(program: Program) -> int:
        return 0 if program.files.exists("/run/ready") else 1

    async with simulated_sandbox(guest=guest) as sandbox:
        with pytest.raises(NotReadyError, match="within 3 s in sandbox 'simulated': it is not ready"):
            await wait_until_ready(sandbox, probe, timeout=3)
        began = trio.current_time()
        async with await sandbox.exec_stream("later") as program:
            await wait_until_ready(sandbox, probe, interval=1)
            assert trio.current_time() - began == 6
            await program.wait()
        await wait_until_ready(sandbox, probe, timeout=1)


@pytest.mark.anyio
async def test_a_probe_has_no_more_time_than_there_is_and_leaves_no_program() -> None:
    guest = SimulatedGuest()
    async with simulated_sandbox(guest=guest) as sandbox:
        began = trio.current_time()
        with pytest.raises(NotReadyError, match="it did not answer"):
            await wait_until_ready(sandbox, exec_probe("sleep", ["1000"]), timeout=7)
        assert trio.current_time() - began == 7
        assert not guest.running
        with pytest.raises(NotReadyError, match="No such file"):
            await wait_until_ready(sandbox, exec_probe("no-such"), timeout=1)


@pytest.mark.anyio
async def test_what_can_never_be_is_told_at_once() -> None:
    guest = SimulatedGuest()
    with pytest.raises(SandboxCrashedError):
        async with simulated_sandbox(guest=guest) as sandbox:
            guest.panic("out of paper")
            await wait_until_ready(sandbox, exec_probe("false"), timeout=1e6)

    async def broken(sandbox: Sandbox) -> bool:
        raise KeyError

    async with simulated_sandbox() as sandbox:
        with pytest.raises(KeyError):
            await wait_until_ready(sandbox, broken)
        with pytest.raises(ValueError, match="negative"):
            await wait_until_ready(sandbox, broken, timeout=-1)
    with pytest.raises(ValueError, match="port"):
        port_probe(70_000)


@pytest.mark.anyio
async def test_cancelled_anywhere_it_leaves_no_program() -> None:
    guest = SimulatedGuest()
    async with simulated_sandbox(guest=guest) as sandbox:
        count = 0

        async def check() -> None:
            assert not guest.running and not guest.open_sessions

        async def operation() -> None:
            nonlocal count
            count = 0

            async def third(sandbox: Sandbox) -> bool:
                nonlocal count
                count += 1
                return await exec_probe("sleep", ["1"])(sandbox) and count == 3

            await wait_until_ready(sandbox, third)

        assert await cancelled_everywhere(operation, check) > 6
