"""The public strategies: what they draw can be used as it is, and means what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from hypothesis import HealthCheck, Phase, find, given, settings
from trio.testing import MockClock

from trio_sandbox import ExecFailedError, ExecTimeoutError, FilesystemError, SandboxCrashedError
from trio_sandbox.testing import Faults, Program, SimulatedGuest, Stroke, StrokeKind, simulated_sandbox
from trio_sandbox.testing import actions as do
from trio_sandbox.testing.backends import SimulatedBackend
from trio_sandbox.testing.model import CAT, Ends, Outcome, ProgramModel
from trio_sandbox.testing.play import play
from trio_sandbox.testing.strategies import (
    ExecRequest,
    FileNode,
    client_scripts,
    exec_requests,
    faults,
    file_trees,
    harmless_faults,
    stdin_scripts,
)

T = TypeVar("T")
FIRST = settings(max_examples=500, phases=[Phase.generate], database=None, derandomize=True)
FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def virtual(function: Callable[..., Awaitable[T]], *args: object) -> T:
    return trio.run(function, *args, clock=MockClock(autojump_threshold=0))


def test_the_test_tools_do_not_need_hypothesis() -> None:
    code = (
        "import sys, trio_sandbox.testing as kit, trio_sandbox.testing.player;"
        "[getattr(kit, name) for name in kit.__all__]; sys.exit('hypothesis' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@given(exec_requests())
@FEW
def test_a_request_has_output_or_a_typed_refusal(request: ExecRequest) -> None:
    async def main() -> None:
        async with simulated_sandbox() as sandbox:
            try:
                await request.exec(sandbox)
            except (ExecFailedError, ExecTimeoutError):
                pass

    virtual(main)


@given(stdin_scripts(), harmless_faults())
@FEW
def test_a_script_of_standard_input_is_played(script: tuple[do.StdinAction, ...], bad: Faults) -> None:
    (model,) = virtual(play, SimulatedBackend(), (do.Start(CAT), *script), bad)
    assert model.outcome is not None
    if not any(isinstance(action, do.Signal) for action in script):
        end = next((place for place, action in enumerate(script) if isinstance(action, do.CloseInput)), None)
        assert model.outcome == Outcome(0)
        assert model.taken == b"".join(action.data for action in script[:end] if isinstance(action, do.Write))


@given(client_scripts(), faults())
@FEW
def test_whole_clients_are_played_whatever_goes_wrong(script: tuple[do.Action, ...], bad: Faults) -> None:
    virtual(play, SimulatedBackend(), script, bad)


@given(file_trees(max_leaves=5))
@settings(FEW, max_examples=8)
def test_a_tree_goes_into_a_sandbox_and_comes_back(tmp_path_factory: pytest.TempPathFactory, tree: FileNode) -> None:
    folder = tmp_path_factory.mktemp("tree")
    tree.make(folder / "there")

    async def main() -> None:
        async with simulated_sandbox() as sandbox:
            await sandbox.fs.copy_from_host(folder / "there", "/tree")
            await sandbox.fs.copy_to_host("/tree", folder / "back", symlinks=True)

    virtual(main)
    assert contents(folder / "back") == contents(folder / "there")


def contents(root: Path) -> dict[bytes, object]:
    found: dict[bytes, object] = {}
    for path, folders, files in os.walk(os.fsencode(root)):
        for name in (*folders, *files):
            at = os.path.join(path, name)
            link = os.readlink(at) if os.path.islink(at) else None
            found[at[len(os.fsencode(root)) :]] = (
                link or os.path.isdir(at) or Path(os.fsdecode(at)).read_bytes(),
                os.lstat(at).st_mtime_ns,
            )
    return found


CRASHES = {StrokeKind.CUT: "agent-lost", StrokeKind.KILL_AGENT: "kernel-panic", StrokeKind.KILL_VMM: "vmm-exited"}


@pytest.mark.parametrize("kind", CRASHES)
def test_a_deadly_stroke_comes_at_its_time(kind: StrokeKind) -> None:
    async def main() -> float:
        began = trio.current_time()
        guest = SimulatedGuest(faults=Faults(strokes=(Stroke(kind, at=30),)))
        with pytest.raises(SandboxCrashedError) as caught:
            async with simulated_sandbox(guest=guest) as sandbox:
                await sandbox.exec("sleep", ["100000"])
        assert caught.value.reason == CRASHES[kind]
        return trio.current_time() - began

    passed = virtual(main)
    assert 30 <= passed < 45


def test_a_full_disk_comes_at_its_time() -> None:
    async def main() -> None:
        guest = SimulatedGuest(faults=Faults(strokes=(Stroke(StrokeKind.FILL_DISK, at=5, value=10),)))
        async with simulated_sandbox(guest=guest) as sandbox:
            await sandbox.fs.write("/before", bytes(1000))
            await trio.sleep(6)
            await sandbox.fs.write("/fits", bytes(10))
            with pytest.raises(FilesystemError):
                await sandbox.fs.write("/after", b"x")

    virtual(main)


def test_what_was_drawn_says_how_to_make_it_again() -> None:
    drawn = find(faults(drops=True), lambda bad: bool(bad.strokes) and bad.drop_chance > 0, settings=FIRST)
    again = eval(repr(drawn), {"Faults": Faults, "Stroke": Stroke, "StrokeKind": StrokeKind})
    assert repr(again) == repr(drawn)
    action = find(client_scripts([CAT]), lambda script: len(script) > 2, settings=FIRST)[1]
    assert "=None" not in repr(action)


def lost_line(size: int) -> SimulatedGuest:
    guest = SimulatedGuest()

    @guest.program("shop")
    async def shop(program: Program) -> None:
        await program.stdout.send((await program.stdin.receive_all())[:size])

    return guest


SHOP = ProgramModel.replying("shop", reply=lambda stdin: stdin)


@pytest.mark.parametrize(
    ("program", "script", "words"),
    [
        (SHOP, [do.Write(b"1234"), do.CloseInput()], "output is missing"),
        (ProgramModel.replying("cat", reply=bytes.upper), [do.Write(b"a"), do.Credit(1)], "not what the program wrote"),
        (ProgramModel("true", ends=Ends.NEVER), [do.Pause(1)], "it was to go on"),
        (ProgramModel("false"), [], "code=1|Outcome.1"),
        (ProgramModel("cat"), [do.Write(b"x"), do.Credit(1)], "not what the program wrote"),
        (ProgramModel("sleep", ("100000",)), [], "nothing happened"),
        (ProgramModel("nothing"), [], "not_found"),
    ],
)
def test_the_model_sees_what_is_wrong(program: ProgramModel, script: list[do.Action], words: str) -> None:
    backend = SimulatedBackend(lambda: lost_line(3))
    with pytest.raises(AssertionError, match=words):
        virtual(play, backend, [do.Start(program), *script])


@pytest.mark.parametrize("kind", CRASHES)
def test_an_end_that_no_fault_explains_is_no_excuse(kind: StrokeKind) -> None:
    guest = SimulatedGuest()

    @guest.program("bomb")
    async def bomb(program: Program) -> None:
        await program.sleep(3)
        {StrokeKind.CUT: guest.cut, StrokeKind.KILL_AGENT: guest.kill_agent, StrokeKind.KILL_VMM: guest.kill_vmm}[
            kind
        ]()
        await program.stdout.send("boom")

    script = [do.Start(ProgramModel("bomb", ends=Ends.NEVER)), do.Pause(10), do.Pause(10)]
    with pytest.raises(SandboxCrashedError):
        virtual(play, SimulatedBackend(lambda: guest), script)
