"""Where `cp` puts things: as people know it from cp(1) and other tools."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from trio_sandbox.cli.copy import Place, into_guest, out_of_guest
from trio_sandbox.cli.failures import CommandError
from trio_sandbox.cli.program import run
from trio_sandbox.client.fs import SandboxFs
from trio_sandbox.client.fs_types import FsEntryKind
from trio_sandbox.errors import PathNotFoundError


@pytest.mark.parametrize(
    ("word", "name", "path"),
    [
        ("box:/a", "box", "/a"),
        ("box:a", "box", "a"),
        ("box:", "box", "/"),
        ("box:a:b", "box", "a:b"),
        ("./box:a", None, "./box:a"),
        ("/a:b", None, "/a:b"),
        ("a/b:c", None, "a/b:c"),
        ("a", None, "a"),
        (":a", None, ":a"),
    ],
)
def test_sides(word: str, name: str | None, path: str) -> None:
    assert Place.of(word) == Place(name, path)


class Guest(SandboxFs):
    """A guest with a folder `/dir` and a file `/file`."""

    def __init__(self) -> None:
        """It has no sandbox."""

    async def stat(self, path: object, *, follow: bool = True, user: str | None = None) -> object:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        kinds = {"/": FsEntryKind.DIRECTORY, "/dir": FsEntryKind.DIRECTORY, "/file": FsEntryKind.FILE}
        kind = kinds.get(str(path).removesuffix(".").rstrip("/") or "/")
        if kind is None:
            raise PathNotFoundError(2, str(path), "No such file or directory")

        class Status:
            def __init__(self) -> None:
                self.kind = kind

        return Status()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `tree`, a file `note`, and an empty folder `out`; it is where we are."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "note").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    ("source", "destination", "target"),
    [
        ("note", "/dir", "/dir/note"),
        ("note", "/dir/", "/dir/note"),
        ("note", "/new", "/new"),
        ("note", "/file", "/file"),
        ("note", "/new/", None),
        ("tree", "/dir", "/dir/tree"),
        ("tree/", "/dir", "/dir/tree"),
        ("tree/.", "/dir", "/dir"),
        ("tree", "/new", "/new"),
        ("tree", "/new/", "/new/"),
        ("tree", "/file", None),
        ("nothing", "/dir", None),
    ],
)
def test_into_the_guest(source: str, destination: str, target: str | None) -> None:
    async def find() -> str:
        return (await into_guest(Guest(), Place(None, source), Place("box", destination), None)).path

    if target is None:
        with pytest.raises(CommandError):
            trio.run(find)
    else:
        assert trio.run(find) == target


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    ("source", "destination", "target"),
    [
        ("/file", "out", "out/file"),
        ("/file", "new", "new"),
        ("/file", "note", "note"),
        ("/file", "new/", None),
        ("/dir", "out", "out/dir"),
        ("/dir/", "out", "out/dir"),
        ("/dir", "new", "new"),
        ("/dir/.", "new", "new"),
        ("/dir/.", "out", None),
        ("/", "out", None),
    ],
)
def test_out_of_the_guest(source: str, destination: str, target: str | None) -> None:
    async def find() -> str:
        return (await out_of_guest(Guest(), Place("box", source), Place(None, destination), None)).path

    if target is None:
        with pytest.raises(CommandError):
            trio.run(find)
    else:
        assert trio.run(find) == target


@pytest.mark.parametrize("words", [["a", "b"], ["x:a", "y:b"]])
def test_one_side_is_a_sandbox(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cp", *words]) == 2
    assert "NAME:PATH" in capsys.readouterr().err
