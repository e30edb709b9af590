"""Faults in the middle of things: each has its consequence, and nothing is left."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from trio_sandbox import ConnectionLostError, SandboxCrashedError, connect
from trio_sandbox.relay.frames import Frame, FrameType, Role, encode
from trio_sandbox.testing import Faults, SimulatedGuest, cut_clients, simulated_sandbox

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("seed", range(20))
async def test_a_crash_in_the_middle_of_anything_is_told_to_everybody(seed: int) -> None:
    chances = random.Random(seed)
    guest = SimulatedGuest(faults=Faults(seed=seed, delay=2.0, delay_chance=0.5, reorder_chance=0.5))
    told = []
    with pytest.raises(SandboxCrashedError) as caught:
        async with simulated_sandbox(guest=guest) as sandbox:

            async def work(number: int) -> None:
                try:
                    while True:
                        blob = bytes([number]) * chances.randint(1, 300_000)
                        assert (await sandbox.exec("cat", stdin=blob)).stdout_bytes == blob
                        await sandbox.fs.write(f"/{number}", blob)
                        assert await sandbox.fs.read(f"/{number}") == blob
                except SandboxCrashedError as error:
                    told.append(error.reason)
                    raise

            with trio.CancelScope(shield=True):  # so that the block's own cancellation does not come first
                try:
                    async with trio.open_nursery() as nursery:
                        for number in range(6):
                            nursery.start_soon(work, number)
                        await trio.sleep(chances.uniform(0, 60))
                        guest.kill_agent()
                except* SandboxCrashedError:
                    pass
    assert caught.value.reason == "kernel-panic"
    assert told and set(told) == {"kernel-panic"}
    assert not guest.is_on


async def test_clients_that_lose_the_relay_leave_nothing_but_what_survives_them(tmp_path: Path) -> None:
    guest = SimulatedGuest()
    address = tmp_path / "relay.sock"
    async with simulated_sandbox(guest=guest, listen=address) as sandbox:
        clients = [await connect(address) for _ in range(3)]
        async with await clients[0].exec_stream("sleep", ["1000"], detached=True) as survivor:
            await survivor.wait_until_started()
        handles = [await client.exec_stream("sleep", ["1000"]) for client in clients]
        for handle in handles:
            await handle.wait_until_started()
        assert len(guest.running) == 4
        assert await cut_clients(sandbox) == 3
        for client, handle in zip(clients, handles, strict=True):
            with pytest.raises(ConnectionLostError):
                await handle.wait()
            with pytest.raises(ConnectionLostError):
                await client.exec("true")
            await client.detach()
        await trio.sleep(10)
        assert len(guest.running) == 1
        assert [info.id for info in await sandbox.sessions()] == [survivor.session_id]


def test_chances_come_again_with_their_seed() -> None:
    frames = [encode(Frame(FrameType.STDOUT, number % 5 + 1, b"x" * number), Role.GUEST) for number in range(50)]
    machine = encode(Frame(FrameType.GOODBYE), Role.GUEST)

    def arranged(seed: int) -> list[bytes]:
        return list(Faults(seed=seed, reorder_chance=0.5, drop_chance=0.1).arranged([*frames, machine]))

    assert arranged(1) == arranged(1) != arranged(2)
    assert arranged(1)[-1] == machine, "what is of the machine overtakes nothing, and nothing overtakes it"
    for session in range(1, 6):
        sizes = [len(raw) for raw in arranged(1) if raw[8] == session]
        assert sizes == sorted(sizes), "those of one session keep their order"
    assert 30 < len(arranged(1)) < 51
    assert list(Faults().arranged(frames)) == frames
