"""Commands on sandboxes that do not run, and on the store alone: no machine is needed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from trio_sandbox.cli.program import run
from trio_sandbox.home import Home
from trio_sandbox.lifecycle import End, EndReason, State
from trio_sandbox.state.owner import Owner
from trio_sandbox.state.places import folder_of, store_of
from trio_sandbox.state.rows import SandboxRow

HOUR_NS = 3600 * 10**9


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A data folder with a sandbox of each kind: `up` runs, `down` stopped, `broken` crashed."""
    monkeypatch.setenv("TRIO_SANDBOX_HOME", str(tmp_path))
    found = Home(tmp_path)
    store = store_of(found)
    for name, reason in (("up", None), ("down", EndReason.REQUESTED), ("broken", EndReason.KERNEL_PANIC)):
        config = json.dumps({"name": name, "image": "local/base", "labels": {"tier": name}})
        now = time.time_ns()
        store.add(
            SandboxRow(
                name, config, State.CREATING, now - 3 * HOUR_NS, now, owner=Owner.current(), labels={"tier": name}
            )
        )
        store.begin_run(name)
        if reason is not None:
            store.end_run(name, End(reason, 0 if reason is EndReason.REQUESTED else 1, "the end of the console"))
        folder_of(found, name).mkdir(parents=True)
    return found


class Said:
    """What a command printed, and its exit status."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        self.status = run(words)
        self.out, self.err = capsys.readouterr()


@pytest.mark.usefixtures("home")
class TestListing:
    def test_ls_shows_what_runs(self, capsys: pytest.CaptureFixture[str]) -> None:
        said = Said(capsys, "ls")
        assert said.status == 0
        assert [line.split() for line in said.out.splitlines()] == [
            ["NAME", "IMAGE", "STATUS", "FOR", "CREATED"],
            ["up", "local/base", "running", "0", "seconds", "3", "hours", "ago"],
        ]

    def test_ps_a_shows_all_oldest_first(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert Said(capsys, "ps", "-aq").out == "up\ndown\nbroken\n"

    def test_labels_and_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        (found,) = json.loads(Said(capsys, "ls", "-a", "--label", "tier=down", "--json").out)
        assert (found["name"], found["status"], found["labels"], found["pid"]) == (
            "down", "stopped", {"tier": "down"}, None)  # fmt: skip
        assert json.loads(Said(capsys, "ls", "--label", "tier=down", "--json").out) == []

    def test_inspect_tells_configuration_and_runs(self, capsys: pytest.CaptureFixture[str]) -> None:
        up, broken = json.loads(Said(capsys, "inspect", "--json", "up", "broken").out)
        assert up["config"]["memory"] == 512 and up["config"]["labels"] == {"tier": "up"}
        (now,) = up["runs"]
        assert (now["ended_at"], now["reason"], now["exit_code"]) == (None, None, None)
        (run,) = broken["runs"]
        assert (run["status"], run["reason"], run["exit_code"]) == ("crashed", "kernel-panic", 1)
        assert run["console_tail"] == "the end of the console" and run["ended_at"] >= run["started_at"]

    def test_inspect_of_one_that_is_not_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        said = Said(capsys, "inspect", "up", "dwn")
        assert (said.status, said.out) == (1, "")
        assert said.err == "trio-sandbox: there is no sandbox named 'dwn'; did you mean 'down'?\n"


class TestVerbs:
    def test_each_is_tried_and_each_failure_told(self, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
        said = Said(capsys, "rm", "nobody", "down", "up", "down")
        assert (said.status, said.out) == (1, "down\n")
        assert sorted(said.err.splitlines()) == [
            "trio-sandbox: sandbox 'up' is still running; stop or kill it first; `trio-sandbox rm -f up` does both",
            "trio-sandbox: there is no sandbox named 'nobody'; `trio-sandbox ls -a` lists all",
        ]
        assert [row.name for row in store_of(home).all()] == ["up", "broken"]
        assert not folder_of(home, "down").exists() and folder_of(home, "up").exists()

    @pytest.mark.usefixtures("home")
    @pytest.mark.parametrize("verb", ["stop", "kill"])
    def test_ending_what_has_ended_is_harmless(self, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
        said = Said(capsys, verb, "down")
        assert (said.status, said.out, said.err) == (0, "down\n", "")

    @pytest.mark.usefixtures("home")
    @pytest.mark.parametrize("verb", ["pause", "unpause", "drain", "metrics"])
    def test_what_needs_a_running_one_says_how_to_start_it(self, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
        said = Said(capsys, verb, "down")
        assert (said.status, said.out) == (1, "")
        assert said.err == "trio-sandbox: sandbox 'down' is not running; `trio-sandbox start down` starts it\n"

    @pytest.mark.usefixtures("home")
    @pytest.mark.parametrize("words", [["exec", "down", "true"], ["shell", "down"], ["attach", "down", "1"]])
    def test_programs_need_a_running_one_and_say_125(
        self, words: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert Said(capsys, *words).status == 125

    @pytest.mark.usefixtures("home")
    def test_wait_prints_how_it_ended(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert Said(capsys, "wait", "broken").out == "1\n"
        assert json.loads(Said(capsys, "wait", "--json", "broken").out) == {"name": "broken", "exit_code": 1}

    @pytest.mark.usefixtures("home")
    def test_one_in_somebodys_block_cannot_be_reached(self, capsys: pytest.CaptureFixture[str]) -> None:
        said = Said(capsys, "exec", "up", "true")
        assert said.status == 125 and "block of process" in said.err

    def test_create_names_every_problem(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("TRIO_SANDBOX_HOME", str(tmp_path))
        said = Said(capsys, "create", "no/name", "--image", "local/base", "-m", "1", "-c", "0", "-l", "=x")
        assert said.status == 1 and said.out == ""
        assert all(word in said.err for word in ("name:", "memory:", "cpus:", "labels:"))


@pytest.mark.usefixtures("home")
class TestTop:
    def test_without_a_terminal_it_is_printed_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        lines = Said(capsys, "top", "-a").out.splitlines()
        assert [line.split()[:3] for line in lines[1:]] == [
            ["broken", "local/base", "crashed"],
            ["down", "local/base", "stopped"],
            ["up", "local/base", "running"],
        ]

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert json.loads(Said(capsys, "stats", "--json").out) == [
            {"name": "up", "image": "local/base", "status": "running", "used": None}
        ]
