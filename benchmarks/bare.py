"""The baselines: QEMU driven by a plain blocking script, with nothing of the runtime in the way."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from trio_sandbox.config import SandboxConfig
from trio_sandbox.files import anonymous_copy
from trio_sandbox.home import Home
from trio_sandbox.host.ready import host_assets
from trio_sandbox.image.rootfs import prepare_rootfs
from trio_sandbox.image.upper import create_upper
from trio_sandbox.machine import MachinePlan
from trio_sandbox.relay.frames import Frame, FrameReader, FrameType, Role, encode
from trio_sandbox.relay.messages import (
    Exec,
    Identify,
    encode_body,
)
from trio_sandbox.vm.command import MachineSpec, qemu_argv
from trio_sandbox.vm.qmp import IGNORE_SHARED
from trio_sandbox.vm.supervise import Sockets
from trio_sandbox.vm.templates import OpenTemplate

IMAGE = "local/base"
TIMEOUT = 60.0


@attrs.frozen
class BareMachine:
    """A QEMU and our ends of its sockets, blocking."""

    process: subprocess.Popen[bytes]
    console: socket.socket
    monitor: socket.socket
    agent: socket.socket


async def make_plan(home: Home, **options: object) -> MachinePlan:
    """What the runtime would boot; the caller closes `base`."""
    config = SandboxConfig.from_options("bench", {"image": IMAGE, **options})
    rootfs = await prepare_rootfs(IMAGE, home)
    base = os.open(rootfs.path, os.O_RDONLY | os.O_CLOEXEC)
    return MachinePlan(config, home, await host_assets(home), rootfs, base)


@contextmanager
def started(plan: MachinePlan, upper: int, template: OpenTemplate | None = None) -> Iterator[BareMachine]:
    """QEMU with the runtime's own command line, killed and reaped at the end."""
    pairs = [socket.socketpair() for _ in range(3)]
    sockets = Sockets(*(theirs.fileno() for _, theirs in pairs))
    spec: MachineSpec = plan.spec(sockets, upper)
    if template is not None:
        spec = plan.clone_spec(sockets, upper, template)
    for ours, _ in pairs:
        ours.settimeout(TIMEOUT)
    process = subprocess.Popen(qemu_argv(spec), pass_fds=spec.descriptors, stderr=subprocess.DEVNULL)
    for _, theirs in pairs:
        theirs.close()
    try:
        yield BareMachine(process, *(ours for ours, _ in pairs))
    finally:
        process.kill()
        process.wait()
        for ours, _ in pairs:
            ours.close()


async def cold_boot(plan: MachinePlan) -> float:
    """Milliseconds from the start of QEMU to the agent's first byte."""
    upper = await create_upper(plan.home)
    try:
        began = time.perf_counter()
        with started(plan, upper) as machine:
            machine.agent.recv(1)
            return (time.perf_counter() - began) * 1e3
    finally:
        os.close(upper)


@contextmanager
def cloned(plan: MachinePlan, template: OpenTemplate) -> Iterator[tuple[BareMachine, float]]:
    """A clone that has said READY, and how many milliseconds that took from nothing."""
    began = time.perf_counter()
    assert template.upper is not None
    os.lseek(template.state, 0, os.SEEK_SET)  # the position is shared with the QEMU that read it last
    upper = anonymous_copy(template.upper, plan.home.scratch)
    try:
        with started(plan, upper, template) as machine:
            _restore(machine.monitor, template.state)
            who = Identify(time.time_ns(), secrets.token_bytes(64), "bench", secrets.token_hex(16))
            machine.agent.sendall(encode(Frame(FrameType.IDENTIFY, body=encode_body(who)), Role.HOST))
            wait_for(machine.agent, FrameType.READY)
            yield machine, (time.perf_counter() - began) * 1e3
    finally:
        os.close(upper)


def _restore(monitor: socket.socket, state: int) -> None:
    def line(command: str, **arguments: object) -> bytes:
        message = {"execute": command, "arguments": arguments} if arguments else {"execute": command}
        return json.dumps(message, separators=(",", ":")).encode() + b"\n"

    monitor.sendall(line("qmp_capabilities") + line("migrate-set-capabilities", **IGNORE_SHARED))
    socket.send_fds(monitor, [line("getfd", fdname="s")], [state])
    monitor.sendall(line("migrate-incoming", uri="fd:s"))


def wait_for(agent: socket.socket, kind: FrameType) -> Frame:
    """Read until a frame of `kind` has come whole."""
    reader = FrameReader(Role.GUEST)
    while True:
        for frame in reader.feed_untrusted(agent.recv(65_536)):
            if frame.type is kind:
                return frame


def execute(agent: socket.socket, session: int, argv: tuple[bytes, ...]) -> float:
    """Milliseconds from an EXEC on the raw port to its EXITED."""
    began = time.perf_counter()
    request = encode_body(Exec(argv, (b"PATH=/usr/bin:/bin",)))
    agent.sendall(encode(Frame(FrameType.EXEC, session, request), Role.HOST))
    wait_for(agent, FrameType.EXITED)
    return (time.perf_counter() - began) * 1e3


def ping(agent: socket.socket) -> float:
    """Milliseconds of one PING round trip on the raw port."""
    began = time.perf_counter()
    agent.sendall(encode(Frame(FrameType.PING, body=b"x" * 64), Role.HOST))
    wait_for(agent, FrameType.PONG)
    return (time.perf_counter() - began) * 1e3
