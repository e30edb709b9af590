"""The helpers on both backends, with real machines."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anyio
import pytest

from trio_sandbox import (
    NotReadyError,
    RestartPolicy,
    Sandbox,
    SandboxCrashedError,
    capture,
    exec_probe,
    file_probe,
    map_sandboxes,
    port_probe,
    race,
    supervise,
    unix_socket_probe,
    wait_until_ready,
)

pytestmark = [pytest.mark.anyio, pytest.mark.vm, pytest.mark.usefixtures("nothing_left")]

SERVER = """
import socket, time
time.sleep(0.3)
unix = socket.socket(socket.AF_UNIX); unix.bind("/run/a server.sock"); unix.listen()
tcp = socket.socket(); tcp.bind(("127.0.0.1", 8080)); tcp.listen()
time.sleep(1000)
"""


async def test_in_one_sandbox(tmp_path: Path) -> None:
    async with await Sandbox.create("patterns", image="local/base", ephemeral=True) as sandbox:
        await sandbox.shell("ip link set lo up || true")
        fast = partial(sandbox.exec, "echo", ["fast"])
        assert (await race(partial(sandbox.exec, "sleep", ["1000"]), fast)).stdout_text == "fast\n"
        assert (await sandbox.shell("pgrep -c sleep")).stdout_text == "0\n"
        async with await sandbox.shell_stream("yes | head -c 1000000; echo no >&2") as program:
            output = await capture(program, head=4, tail=2, spill=tmp_path / "all")
        assert (output.stdout.head, output.stdout.tail, output.stdout.dropped) == (b"y\ny\n", b"y\n", 999_994)
        assert (output.stderr.text(), (tmp_path / "all").stat().st_size) == ("no\n", 1_000_003)
        probes = [unix_socket_probe("/run/a server.sock"), port_probe(8080), file_probe("/run/a server.sock")]
        for probe in probes:
            with pytest.raises(NotReadyError):
                await wait_until_ready(sandbox, probe, timeout=0.1)
        async with await sandbox.exec_stream("python3", ["-c", SERVER]):
            for probe in [*probes, exec_probe("pgrep", ["python3"])]:
                await wait_until_ready(sandbox, probe)


async def test_in_several() -> None:
    async def word(sandbox: Sandbox, item: str) -> str:
        assert not await sandbox.fs.exists("/root/used")
        return (await sandbox.shell(f"echo {item} | tee /root/used")).stdout_text

    assert await map_sandboxes(word, ["one", "two", "three"], limit=2, image="local/base") == [
        "one\n",
        "two\n",
        "three\n",
    ]


async def test_a_supervised_one_that_crashes_and_then_is_cancelled() -> None:
    lives = 0
    failures = []
    with anyio.CancelScope() as scope:

        async def run(sandbox: Sandbox) -> None:
            nonlocal lives
            lives += 1
            if lives == 1:
                await sandbox.shell("echo c > /proc/sysrq-trigger")
            async with await sandbox.exec_stream("sleep", ["1000"]):
                scope.cancel()
                await anyio.sleep_forever()

        policy = RestartPolicy(delay=0.01)
        await supervise(run, policy=policy, on_restart=lambda one: failures.append(one.failure), image="local/base")
    assert scope.cancelled_caught
    assert lives == 2
    assert [type(failure) for failure in failures] == [SandboxCrashedError]
