"""The commands about snapshots: what they print, and how they fail."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from tests.cli.test_images import Said
from tests.cli.test_program import run_watching_imports
from tests.snapshot.stopped import CHAIN, DISK_SIZE, stopped
from trio_sandbox.cli.program import program
from trio_sandbox.cli.run import run
from trio_sandbox.home import Home
from trio_sandbox.snapshot.description import DISK_FILE
from trio_sandbox.snapshot.store import find, folder_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("TRIO_SANDBOX_HOME", str(tmp_path / "home"))
    home = Home(tmp_path / "home")
    stopped(home, "one")
    return home


def test_create_ls_and_inspect(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "snapshot", "create", "built", "one", "-l", "stage=built")
    assert (said.status, said.out, said.err) == (0, "built\n", "")
    made = find(home, "built")
    assert Said(capsys, "snapshot", "ls", "-q").out == "built\n"
    heading, row = Said(capsys, "snapshot", "ls").out.splitlines()
    assert heading.split() == ["NAME", "KIND", "FROM", "IMAGE", "DIGEST", "CREATED", "ON", "DISK"]
    assert row.split()[:5] == ["built", "disk", "one", "local/base", made.description.digest[:19]]
    (plain,) = json.loads(Said(capsys, "snapshot", "ls", "--json", "-l", "stage=built").out)
    assert [plain] == json.loads(Said(capsys, "snapshot", "inspect", "built").out)
    assert (plain["name"], plain["virtual_bytes"], plain["chain_id"]) == ("built", DISK_SIZE, CHAIN)
    assert json.loads(Said(capsys, "snapshot", "ls", "--json", "-l", "stage=other").out) == []


def test_failures_are_sentences_with_a_remedy(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    Said(capsys, "snapshot", "create", "built", "one")
    for words, sentence in (
        (("create", "built", "one"), "exists already; choose another name, or force it"),
        (("create", "other", "oen"), "there is no sandbox named 'oen'; did you mean 'one'?"),
        (("create", "a b", "one"), "name: 'a b' is not"),
        (("inspect", "missing"), "`trio-sandbox snapshot ls` lists"),
        (("verify", "./built"), "it is no snapshot"),
        (("load", "missing.tar.gz"), "there is no such file"),
    ):
        said = Said(capsys, "snapshot", *words)
        assert (said.status, said.out) == (1, "")
        (line,) = said.err.splitlines()
        assert sentence in line
    assert Said(capsys, "snapshot", "create", "built", "one", "--force").status == 0
    assert Said(capsys, "snapshot", "rm", "built", "missing", "./x").err.count("\n") == 2
    assert list(folder_of(home).iterdir()) == []


def test_verify(home: Home, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made = json.loads(Said(capsys, "snapshot", "create", "built", "one", "--dest-dir", tmp_path, "--json").out)
    assert Said(capsys, "snapshot", "verify", made["path"]).out == "built\n"
    with (tmp_path / "built" / DISK_FILE).open("r+b") as file:
        file.write(b"damage")
    said = Said(capsys, "snapshot", "verify", made["path"])
    assert said.status == 1 and "is damaged" in said.err


def test_save_and_load(home: Home, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Said(capsys, "snapshot", "create", "built", "one")
    archive = tmp_path / "built.tar.gz"
    assert Said(capsys, "snapshot", "save", "built", "-o", archive).status == 0
    assert Said(capsys, "snapshot", "load", archive).status == 1  # the name is taken
    assert Said(capsys, "snapshot", "load", archive, "-n", "again").out == "again\n"
    assert find(home, "again").description == find(home, "built").description
    refused = Said(capsys, "snapshot", "save", "built", "-o", tmp_path / "x", "--with-image")
    assert refused.status == 1 and "layers are not in the cache" in refused.err


def test_an_image_or_a_snapshot(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ("create", "x"),
        ("create", "x", "--image", "local/base", "--snapshot", "built"),
        ("run",),
    ):
        assert Said(capsys, *words).status == 2
    for given in (["--snapshot", "s"], ["--snapshot=s"], ["-c", "2", "--snapshot", "s", "--"]):
        context = run.make_context("run", [*given, "sh", "-c", "true"])
        assert (context.params["image"], context.params["command"]) == ("sh", ("-c", "true"))
        assert context.params["snapshot"] == "s"


@pytest.mark.parametrize("words", [["snapshot", "ls"], ["snapshot", "ls", "--json"]])
def test_looking_needs_no_event_loop(words: list[str], tmp_path: Path) -> None:
    assert run_watching_imports(f"assert run({words!r}) == 0", tmp_path).stderr.strip() == ""


def test_a_shell_completes_their_names(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    Said(capsys, "snapshot", "create", "built", "one")
    completing = ShellComplete(program, {}, "trio-sandbox", "_COMPLETE")
    for words, start, names in (
        (["snapshot", "rm"], "b", ["built"]),
        (["snapshot", "inspect"], "x", []),
        (["snapshot", "create", "new"], "o", ["one"]),
    ):
        assert [item.value for item in completing.get_completions(words, start)] == names
    assert os.listdir(folder_of(home)) == ["built"]
