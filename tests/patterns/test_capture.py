from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox import ExecFailedError, ExecTimeoutError, StorageError, capture
from trio_sandbox.patterns.capture import Keeper
from trio_sandbox.testing import Program, SimulatedGuest, simulated_sandbox

sizes = st.integers(0, 40)


@given(st.lists(st.binary(max_size=30), max_size=12), sizes, sizes)
def test_head_and_tail_are_those_of_the_stream_however_it_is_cut(pieces: list[bytes], head: int, tail: int) -> None:
    keeper = Keeper(head, tail)
    for piece in pieces:
        keeper.feed(piece)
    stream, kept = b"".join(pieces), keeper.kept()
    assert kept.head == stream[:head]
    assert kept.tail == (stream[head:][-tail:] if tail else b"")
    assert kept.size == len(stream) == len(kept.head) + kept.dropped + len(kept.tail)
    assert ("dropped" in kept.text()) == bool(kept.dropped)
    assert len(keeper._last) <= tail


@pytest.fixture
def guest() -> SimulatedGuest:
    guest = SimulatedGuest()

    @guest.program("chatter")
    async def chatter(program: Program) -> int:
        for number in range(2000):
            await program.stdout.send(f"{number:99}\n")
        await program.stderr.send("done\n")
        await program.sleep(float(program.argv[1]))
        return 3

    return guest


@pytest.mark.anyio
async def test_both_streams_and_the_end(guest: SimulatedGuest, tmp_path: Path) -> None:
    async with simulated_sandbox(guest=guest) as sandbox:
        async with await sandbox.exec_stream("chatter", ["1"]) as program:
            output = await capture(program, head=100, tail=250, spill=tmp_path / "all")
    assert (output.exit.code, output.success) == (3, False)
    assert output.stdout.head == b"%99d\n" % 0
    assert output.stdout.tail == b"".join(b"%99d\n" % number for number in (1997, 1998, 1999))[-250:]
    assert output.stdout.dropped == 200_000 - 350
    assert output.stderr.text() == "done\n"
    assert (tmp_path / "all").read_bytes() == b"".join(b"%99d\n" % number for number in range(2000)) + b"done\n"


@pytest.mark.anyio
async def test_what_goes_wrong(guest: SimulatedGuest, tmp_path: Path) -> None:
    async with simulated_sandbox(guest=guest) as sandbox:
        async with await sandbox.exec_stream("chatter", ["1000"], timeout=5) as program:
            with pytest.raises(ExecTimeoutError) as caught:
                await capture(program, head=4, tail=100)
        assert (len(caught.value.stdout), caught.value.stderr, caught.value.timeout) == (104, b"done\n", 5)
        async with await sandbox.exec_stream("no-such") as program:
            with pytest.raises(ExecFailedError):
                await capture(program)
        async with await sandbox.exec_stream("chatter", ["1"]) as program:
            with pytest.raises(StorageError):
                await capture(program, spill=tmp_path / "none" / "all")
            with pytest.raises(ValueError, match="negative"):
                await capture(program, head=-1)
        async with await sandbox.exec_stream("chatter", ["1"]) as program:
            with pytest.raises(StorageError, match="No space left"):
                await capture(program, spill="/dev/full")
    assert not guest.running


@pytest.mark.anyio
async def test_cancelled_the_program_is_its_blocks_and_the_file_has_what_came(
    guest: SimulatedGuest, tmp_path: Path
) -> None:
    spill = tmp_path / "all"
    async with simulated_sandbox(guest=guest) as sandbox:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cancel() -> None:
                while not spill.exists() or spill.stat().st_size < 200_005:
                    await trio.lowlevel.checkpoint()  # virtual time would not wait for the file
                nursery.cancel_scope.cancel()

            async with await sandbox.exec_stream("chatter", ["inf"]) as program:
                await capture(program, spill=spill)
        assert not guest.running
    assert spill.stat().st_size == 200_005
