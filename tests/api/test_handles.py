"""Sandboxes by name: `Sandbox.get`, `Sandbox.list`, and all that a handle can do without a connection of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.real.traces import users
from trio_sandbox import (
    EndReason,
    Home,
    ImageNotFoundError,
    Sandbox,
    SandboxAlreadyExistsError,
    SandboxConfig,
    SandboxCrashedError,
    SandboxDrainingError,
    SandboxNotFoundError,
    SandboxNotRunningError,
    SandboxPausedError,
    SandboxStillRunningError,
    WebSocketAddress,
    connect,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]


async def test_what_a_handle_tells(home: Home) -> None:
    before = time.time() * 1000
    async with await Sandbox.create("told", image="local/base", env={"COLOUR": "red"}, labels={"team": "a"}):
        handle = await Sandbox.get("told")
        assert (handle.name, handle.status) == ("told", "running")
        assert json.loads(handle.config_json)["env"] == {"COLOUR": "red"}
        assert handle.config == SandboxConfig(
            name="told", image="local/base", env={"COLOUR": "red"}, labels={"team": "a"}
        )
        assert handle.created_at is not None and handle.updated_at is not None
        assert before <= handle.created_at <= handle.updated_at <= time.time() * 1000
        assert handle.labels == {"team": "a"}
        info = handle.info
        assert (info.name, info.status, info.config_json) == ("told", "running", handle.config_json)
        (run,) = await handle.runs()
        assert (run.ended_ns, run.reason) == (0, "")


async def test_unknown_names() -> None:
    for call in (Sandbox.get, Sandbox.start, Sandbox.remove):
        with pytest.raises(SandboxNotFoundError) as caught:
            await call("nobody")
        assert caught.value.name == "nobody"


async def test_list_by_labels() -> None:
    async with await Sandbox.create("red", image="local/base", labels={"colour": "red", "size": "s"}):
        async with await Sandbox.create("blue", image="local/base", labels={"colour": "blue", "size": "s"}):
            names = [handle.name for handle in await Sandbox.list()]
            assert names == ["red", "blue"]  # oldest first
            assert [handle.name for handle in await Sandbox.list({"colour": "blue"})] == ["blue"]
            assert len(await Sandbox.list({"size": "s"})) == 2
            assert await Sandbox.list({"size": "s", "colour": "green"}) == []


async def test_a_running_one_is_not_started_removed_or_made_again() -> None:
    async with await Sandbox.create("one", image="local/base") as sb:
        handle = await Sandbox.get("one")
        for call in (handle.start, handle.remove, sb.remove_persisted):
            with pytest.raises(SandboxStillRunningError):
                await call()
        with pytest.raises(SandboxStillRunningError):
            await Sandbox.remove("one")
        with pytest.raises(SandboxAlreadyExistsError):
            await Sandbox.create("one", image="local/base")
        assert (await sb.exec("true")).success
        await sb.kill()
        with pytest.raises(SandboxAlreadyExistsError):  # it is stopped, and it is there
            await Sandbox.create("one", image="local/base")


async def test_operations_on_a_stopped_one() -> None:
    sb = await Sandbox.create("still", image="local/base")
    assert await sb.stop_and_wait() == (0, True)
    handle = await Sandbox.get("still")
    await handle.stop()  # harmless
    await handle.kill()
    for call in (handle.connect, handle.pause, handle.resume, handle.drain, handle.metrics):
        with pytest.raises(SandboxNotRunningError):
            await call()
    with pytest.raises(SandboxNotRunningError):
        await sb.exec("true")
    assert await handle.wait_until_stopped() is handle
    await sb.remove_persisted()
    with pytest.raises(SandboxNotFoundError):
        await Sandbox.get("still")


@pytest.mark.parametrize("timeout", [5.0, 0])
async def test_stop_from_a_handle(timeout: float) -> None:
    sb = await Sandbox.create("ended", image="local/base")
    await sb.shell("echo kept > /root/note")
    handle = await Sandbox.get("ended")
    await handle.stop_with_timeout(timeout)
    assert handle.status == "stopped"
    end = await sb.end()
    assert end.reason is (EndReason.REQUESTED if timeout else EndReason.KILLED)
    assert (end.exit_code, end.success) == ((0, True) if timeout else (-9, False))
    assert await sb.wait_until_stopped() == (end.exit_code, end.success)
    async with sb:
        pass
    assert await Sandbox.list() == []


async def test_a_guest_that_does_not_power_off_is_forced() -> None:
    async with await Sandbox.create("stubborn", image="local/base") as sb:
        handle = await Sandbox.get("stubborn")
        process = await sb.shell_stream("trap '' TERM; echo ready; while :; do sleep 100; done")
        async with process:
            await process.recv()
            began = anyio.current_time()
            await handle.stop_with_timeout(1.0)
            assert anyio.current_time() - began < 9
        assert handle.status == "stopped"


async def test_connect_with_timeout_to_a_process_that_does_not_answer(home: Home) -> None:
    """A stopped process still listens: the time is up, and kill ends it all the same."""
    async with await Sandbox.create("frozen", image="local/base") as sb:
        handle = await Sandbox.get("frozen")
        owner = handle._row.owner
        assert owner is not None
        os.kill(owner.pid, signal.SIGSTOP)
        with pytest.raises(Exception, match="nobody answers"):
            await handle.connect_with_timeout(0.3)
        os.kill(owner.pid, signal.SIGCONT)
        assert (await sb.exec("true")).success


async def test_drain_and_pause_over_a_handle() -> None:
    async with await Sandbox.create("many", image="local/base") as sb:
        handle = await Sandbox.get("many")
        await handle.pause()
        assert (await handle.refresh()).status == "paused"
        with pytest.raises(SandboxPausedError):
            await sb.exec("true")
        async with await handle.connect() as other:
            with pytest.raises(SandboxPausedError):
                await other.fs.read("/etc/hostname")
            await other.resume()
        assert (await handle.refresh()).status == "running"
        async with await sb.shell_stream("read line; echo $line", stdin="") as running:
            await running.wait()
        async with await sb.exec_stream("sleep", ["1000"]) as running:
            await running.recv()
            await handle.drain()
            assert (await handle.refresh()).status == "draining"
            async with await handle.connect() as other:  # allowed; new programs are not
                with pytest.raises(SandboxDrainingError):
                    await other.exec("true")
            with pytest.raises(SandboxDrainingError):
                await sb.exec("true")
            with pytest.raises(SandboxDrainingError):
                await sb.pause()
        assert (await sb.end()).reason is EndReason.DRAINED
        assert (await handle.wait_until_stopped()).status == "stopped"


async def test_a_drain_with_a_deadline_ends_what_is_left() -> None:
    async with await Sandbox.create("late", image="local/base") as sb:
        async with await sb.exec_stream("sleep", ["1000"]) as running:
            await running.recv()
            await sb.drain(timeout=0.2)
            with anyio.fail_after(10):
                assert (await sb.end()).reason is EndReason.DRAINED


async def test_replace() -> None:
    first = await Sandbox.create("again", image="local/base")
    await first.shell("echo first > /root/note")
    second = await Sandbox.create("again", image="local/base", replace=True)
    assert not await second.fs.exists("/root/note")
    assert (await first.end()).reason is EndReason.REQUESTED
    third = await Sandbox.create("again", image="local/base", replace_with_timeout=0)
    assert (await second.end()).reason is EndReason.KILLED
    assert (await third.exec("true")).success
    for ended in (first, second):
        async with ended:  # what they owned is gone, and the third is not theirs
            pass
    assert (await third.exec("true")).success
    async with third:
        pass
    async with await Sandbox.create("again", image="local/base", replace=True) as fourth:  # there is none to replace
        assert (await fourth.exec("true")).success


async def test_an_ephemeral_one_is_gone_when_it_stops(home: Home) -> None:
    sb = await Sandbox.create("brief", image="local/base", ephemeral=True)
    assert not (home.root / "sandboxes" / "brief" / "upper.ext4").exists()
    handle = await Sandbox.get("brief")
    await handle.stop()
    assert handle.status == "stopped"
    with pytest.raises(SandboxNotFoundError):
        await Sandbox.get("brief")
    assert (await sb.end()).reason is EndReason.REQUESTED
    async with sb:
        pass


async def test_create_detached_and_start_detached() -> None:
    sb = await Sandbox.create_detached("free", image="local/base")
    assert await sb.owns_lifecycle
    await sb.stop()
    again = await Sandbox.start_detached("free")
    assert (await again.exec("true")).success
    await again.stop()
    handle = await Sandbox.get("free")
    third = await handle.start_detached()
    assert handle.status == "running"
    async with third:
        pass
    async with sb, again:
        pass


async def test_a_config_is_built_and_travels_and_is_accepted() -> None:
    config = SandboxConfig.from_options("planned", {"image": "local/base", "env": {"A": "b"}, "pull_policy": "never"})
    assert SandboxConfig.from_json(config.to_json()) == config
    assert config == SandboxConfig(name="planned", image="local/base", env={"A": "b"}, pull_policy="never")
    async with await Sandbox.create(config) as sb:
        assert (await sb.shell("echo $A")).stdout_text == "b\n"
        assert (await Sandbox.get("planned")).config == config


async def test_the_longest_name(home: Home) -> None:
    name = "n" + "-o.N_e" * 21 + "s"
    assert len(name) == 128
    async with await Sandbox.create(name, image="local/base") as sb:
        assert await sb.name == name
        hostname = (await sb.exec("cat", ["/proc/sys/kernel/hostname"])).stdout_text.strip()
        assert len(hostname) <= 63
        assert hostname == (await Sandbox.get(name)).config.effective_hostname
        (handle,) = await Sandbox.list()
        async with await handle.connect() as other:
            assert (await other.exec("true")).success
        await sb.stop()
        async with await handle.start() as again:
            assert (await again.exec("true")).success


async def test_the_longest_name_in_a_long_data_folder(home: Home, tmp_path: Path) -> None:
    """Longer than the 108 bytes of a socket address, whatever the name is."""
    root = tmp_path / ("deep-" * 40)
    root.mkdir()
    for name in ("kernels", "initramfs", "host", "images", "cache"):
        (root / name).symlink_to(home.folder(name))
    other, name = Home(root), "x" * 128
    assert len(str(other.run)) > 200
    async with await Sandbox.create(name, image="local/base", home=other, warm=False) as sb:
        assert len(sb.addresses[0]) > 108
        assert (await sb.exec("true")).success
        (handle,) = await Sandbox.list(home=other)
        async with await handle.connect() as client:
            assert (await client.exec("true")).success
        assert users(other)
    assert not users(other)


async def test_ping_and_touch_and_console() -> None:
    async with await Sandbox.create("alive", image="local/base") as sb:
        pong = await sb.ping()
        assert (pong.name, pong.latency_ms > 0) == ("alive", True)
        await sb.touch()
        assert list(sb.timings)[-1] == "ready"


async def test_a_panic_is_told_by_the_handle_and_by_the_runs() -> None:
    async with await Sandbox.create("panicking", image="local/base") as sb:
        with pytest.raises(SandboxCrashedError) as caught:
            await sb.shell("echo c > /proc/sysrq-trigger; sleep 1000")
        assert caught.value.reason == EndReason.KERNEL_PANIC
        end = await sb.end()
        assert (end.reason, end.exit_code, end.success) == (EndReason.KERNEL_PANIC, 1, False)
        assert "Kernel panic - not syncing" in end.console_tail
        handle = await (await Sandbox.get("panicking")).wait_until_stopped()
        assert handle.status == "crashed"
        (run,) = await handle.runs()
        assert (run.state, run.reason, run.exit_code) == ("crashed", "kernel-panic", 1)
        assert "Kernel panic - not syncing" in run.console_tail
        assert run.started_ns < run.ended_ns
        again = await handle.start()
        assert (await again.exec("true")).success
        await again.stop()
        assert [run.reason for run in await handle.runs()] == ["kernel-panic", "requested"]
        await handle.remove()


async def test_kill_9_of_the_machine_and_of_the_process_are_crashes(home: Home) -> None:
    async with await Sandbox.create("shot", image="local/base") as sb:
        handle = await Sandbox.get("shot")
        owner = handle._row.owner
        assert owner is not None
        (vmm,) = users(home) - {owner.pid}
        os.kill(vmm, signal.SIGKILL)
        assert (await sb.end()).reason is EndReason.VMM_EXITED
        assert (await handle.wait_until_stopped()).status == "crashed"
        again = await handle.start()
        owner = handle._row.owner
        assert owner is not None
        os.kill(owner.pid, signal.SIGKILL)
        end = await again.end()
        assert (end.reason, end.exit_code) == (EndReason.VMM_EXITED, -9)
        assert (await handle.refresh()).status == "crashed"
        assert [(run.state, run.reason) for run in await handle.runs()] == [("crashed", "vmm-exited")] * 2
        await handle.remove()


async def test_its_end_from_several_tasks_at_once() -> None:
    async with await Sandbox.create("popular", image="local/base") as sb:
        seen = []

        async def wait() -> None:
            seen.append(await sb.wait())

        async with anyio.create_task_group() as group:
            for call in (wait, wait, sb.stop, sb.stop, wait):
                group.start_soon(call)
        assert seen == [(0, True)] * 3


@pytest.mark.parametrize("by_handle", [True, False])
async def test_a_process_that_does_not_answer_is_killed(monkeypatch: pytest.MonkeyPatch, by_handle: bool) -> None:
    for name in ("remote.CONNECT_TIMEOUT", "remote.END_TIMEOUT", "ownership.PROCESS_TIMEOUT", "handle.PROCESS_TIMEOUT"):
        monkeypatch.setattr(f"trio_sandbox.client.{name}", 0.3)
    async with await Sandbox.create("frozen", image="local/base") as sb:
        handle = await Sandbox.get("frozen")
        owner = handle._row.owner
        assert owner is not None
        os.kill(owner.pid, signal.SIGSTOP)
        await (handle.kill() if by_handle else sb.kill())
        assert (await handle.refresh()).status == "stopped"
        (run,) = await handle.runs()
        assert (run.reason, run.exit_code) == ("killed", -9)
        assert (await sb.end()).reason is EndReason.KILLED


async def test_what_it_stands_on_is_written_down(home: Home) -> None:
    """Its image may change its meaning, or go: what was started from it starts again."""
    image = home.images / "local" / "moved"
    shutil.copytree(home.images / "local" / "base", image, copy_function=os.link)
    try:
        sb = await Sandbox.create("pinned", image="local/moved")
    finally:
        shutil.rmtree(image)
    await sb.shell("echo kept > /root/note")
    await sb.stop()
    again = await Sandbox.start("pinned")
    async with again, sb:
        assert (await again.shell("cat /root/note; python3 -c 'print(1)'")).stdout_text == "kept\n1\n"
        with pytest.raises(ImageNotFoundError):
            await Sandbox.create("other", image="local/moved")


async def test_a_guest_cannot_kill_its_agent() -> None:
    async with await Sandbox.create("safe", image="local/base") as sb:
        await sb.shell("kill -9 1")
        assert (await sb.ping()).latency_ms > 0


async def test_where_else_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    token = "t" * 20
    options: dict[str, Any] = {"listen": "sb.sock", "websocket": WebSocketAddress(token=token)}
    async with await Sandbox.create("open", image="local/base", **options) as sb:
        assert sb.token == token
        _, listening, websocket = sb.addresses
        assert listening == str(tmp_path / "sb.sock")
        assert websocket.startswith("ws://127.0.0.1:")
        async with await connect("sb.sock") as other:
            assert (await other.exec("true")).success
            assert not await other.owns_lifecycle
