"""The API document's own examples, changed in nothing but the import and the image."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from trio_sandbox import ExecOutput, Sandbox, SandboxHandle, SandboxNotFoundError

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]


@pytest.fixture
async def sb(nothing_left: None) -> AsyncIterator[Sandbox]:
    async with await Sandbox.create("worker", image="local/base") as sandbox:
        yield sandbox


async def test_create_and_use_as_a_context_manager() -> None:
    async with await Sandbox.create("my-sandbox", image="local/base") as sb:
        output = await sb.shell("echo hello")
        assert output.stdout_text == "hello\n"
    # sandbox is automatically killed and removed on exit
    with pytest.raises(SandboxNotFoundError):
        await Sandbox.get("my-sandbox")


async def test_exec_with_options(sb: Sandbox) -> None:
    await sb.fs.mkdir("/app/lib")
    await sb.fs.write("/app/lib/helper.py", "ANSWER = 42\n")
    await sb.fs.write("/app/compute.py", "import helper; print(helper.ANSWER)\n")
    output = await sb.exec(
        "python3",
        ["compute.py"],
        cwd="/app",
        env={"PYTHONPATH": "/app/lib"},
        timeout=30.0,
    )
    assert isinstance(output, ExecOutput)
    assert (output.stdout_text, output.exit_code, output.success) == ("42\n", 0, True)


async def test_shell(sb: Sandbox) -> None:
    await sb.fs.mkdir("/app")
    assert (await sb.shell("ls -la /app && echo done")).stdout_text.endswith("done\n")
    assert (await sb.shell("exit 3")).exit_code == 3


async def test_streams(sb: Sandbox) -> None:
    seen: list[Any] = []
    async with await sb.shell_stream("echo out; echo err >&2") as handle:
        async for event in handle:
            seen.append((event.event_type, event.data))
    assert seen[0][0] == "started" and seen[-1][0] == "exited"
    assert {("stdout", b"out\n"), ("stderr", b"err\n")} <= set(seen)
    async with await sb.exec_stream("cat", stdin="typed") as handle:
        assert (await handle.collect()).stdout_bytes == b"typed"


async def test_name_and_ownership_are_awaited(sb: Sandbox) -> None:
    assert await sb.name == "worker"
    assert await sb.owns_lifecycle
    handle = await Sandbox.get("worker")
    async with await handle.connect() as other:
        assert await other.name == "worker"
        assert not await other.owns_lifecycle
    assert (await sb.exec("true")).success  # the other only let go


async def test_metrics_stream_by_iteration_and_by_recv(sb: Sandbox) -> None:
    metrics = await sb.metrics()
    assert metrics.memory_limit_bytes == 512 << 20
    assert 0 < metrics.memory_bytes < metrics.memory_limit_bytes
    assert metrics.uptime_ms > 0
    began = anyio.current_time()
    stream = await sb.metrics_stream(interval=0.2)
    first = await stream.recv()
    assert first is not None
    async for second in stream:
        assert second.timestamp_ms > first.timestamp_ms
        break
    assert anyio.current_time() - began >= 0.2
    await sb.stop()
    assert await stream.recv() is None
    assert [late async for late in stream] == []


async def test_create_with_progress() -> None:
    session = Sandbox.create_with_progress("my-sandbox", image="local/base")
    seen = []
    async with session:
        async for event in session.progress:
            seen.append(event)
        sb = await session.result()
    assert [event.event_type for event in seen] == ["resolving", "resolved", "complete"]
    assert {event.reference for event in seen} == {"local/base"}
    assert seen[1].manifest_digest is not None and seen[1].manifest_digest.startswith("sha256:")
    assert (seen[1].layer_count, seen[1].total_download_bytes, seen[2].layer_count) == (1, 0, 1)
    assert (seen[0].digest, seen[0].layer_index) == (None, None)
    async with sb:
        assert (await sb.exec("true")).success


async def test_stop_then_start_then_remove() -> None:
    sb = await Sandbox.create("worker", image="local/base")
    await sb.shell("echo kept > /root/note")
    await sb.stop()
    (found,) = await Sandbox.list()
    assert isinstance(found, SandboxHandle)
    assert (found.name, found.status) == ("worker", "stopped")
    sb = await Sandbox.start("worker")
    assert (await sb.shell("cat /root/note")).stdout_text == "kept\n"
    assert await sb.stop_and_wait() == (0, True)
    await Sandbox.remove("worker")
    assert await Sandbox.list() == []


async def test_detach_get_connect_stop() -> None:
    sb = await Sandbox.create("worker", image="local/base", detached=True)
    assert await sb.owns_lifecycle
    await sb.detach()
    assert not await sb.owns_lifecycle
    handle = await Sandbox.get("worker")
    assert handle.status == "running"
    again = await handle.connect()
    assert (await again.shell("echo here")).stdout_text == "here\n"
    await again.detach()
    await handle.stop()
    assert (await handle.refresh()).status == "stopped"
    await handle.remove()
    with pytest.raises(SandboxNotFoundError):
        await handle.refresh()


async def test_a_drain_lets_commands_finish_and_takes_no_new_ones(sb: Sandbox) -> None:
    async with await sb.shell_stream("sleep 0.5; echo finished") as running:
        await running.recv()
        await sb.drain()
        with anyio.fail_after(10):
            assert (await running.collect()).stdout_text == "finished\n"
            assert await sb.wait() == (0, True)
