"""The commands about images: what they print, and how they fail."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from tests.cli.test_program import run_watching_imports
from tests.image.images import Item, archive_bytes, docker_files, layer_tar, make_image
from trio_sandbox.cli.program import program, run
from trio_sandbox.home import Home
from trio_sandbox.image.cache.catalog import Catalog
from trio_sandbox.image.cache.keys import rootfs_key
from trio_sandbox.locks import lock_file, try_lock

ONE, TWO = "registry.test/one:1", "registry.test/two:1"


class Said:
    """What a command printed, and its exit status."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: str | Path) -> None:
        self.status = run([os.fspath(word) for word in words])
        self.out, self.err = capsys.readouterr()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("TRIO_SANDBOX_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home")


@pytest.fixture
def archive(home: Home, tmp_path: Path) -> Path:
    path = tmp_path / "image.tar"
    image = make_image([layer_tar([Item("a", b"a" * 5000)])], config={"Cmd": ["sh"]}, created="2026-01-02T03:04:05Z")
    path.write_bytes(archive_bytes(docker_files(image, [ONE, TWO])))
    return path


def test_load_list_and_inspect(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = Said(capsys, "load", archive)
    assert loaded.status == 0
    digest = loaded.out.split()[1]
    assert loaded.out == f"{ONE} {digest}\n{TWO} {digest}\n"
    assert Said(capsys, "images", "-q").out == f"{ONE}\n{TWO}\n"
    heading, first, _ = Said(capsys, "image", "ls").out.splitlines()
    assert heading.split() == ["REFERENCE", "DIGEST", "CREATED", "USED", "SIZE", "ON", "DISK"]
    assert first.split()[:3] == [ONE, digest[:19], "2026-01-02"]
    (found, _) = json.loads(Said(capsys, "images", "--json").out)
    assert (found["reference"], found["manifest_digest"], found["layer_count"]) == (ONE, digest, 1)
    (detail,) = json.loads(Said(capsys, "image", "inspect", ONE).out)
    assert detail["config"]["cmd"] == ["sh"]
    assert detail["layers"][0]["size_bytes"] == 10_240
    assert {key: detail[key] for key in found} == found


def test_json_of_what_was_loaded(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = json.loads(Said(capsys, "load", archive, "--tag", "mine", "--json").out)
    assert found["reference"] == "docker.io/library/mine:latest"


def test_rmi_and_prune(archive: Path, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    Said(capsys, "load", archive)
    assert Said(capsys, "rmi", ONE).out == f"{ONE}\n"
    (image,) = Catalog(home).all()
    with lock_file(home) as descriptor:
        assert try_lock(descriptor, rootfs_key(image.chain_id), shared=True)
        said = Said(capsys, "rmi", TWO, ONE, "Bad/Name")
        assert (said.status, said.out) == (1, "")
        assert len(said.err.splitlines()) == 3
        assert "running sandbox" in said.err.splitlines()[0]
    assert Said(capsys, "image", "rm", "-f", TWO).out == f"{TWO}\n"
    report = json.loads(Said(capsys, "image", "prune", "--json").out)
    assert report == {"images_removed": [], "blobs_removed": 0, "rootfs_removed": 0, "bytes_reclaimed": 0}
    Said(capsys, "load", archive)
    said = Said(capsys, "image", "prune", "--all")
    assert said.out == f"{ONE}\n{TWO}\n"
    assert "freed" in said.err


def test_save(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Said(capsys, "load", archive)
    target = tmp_path / "saved.tar"
    assert Said(capsys, "save", ONE, TWO, "-o", target).status == 0
    assert Said(capsys, "image", "prune", "-a").status == 0
    assert [line.split()[0] for line in Said(capsys, "load", target).out.splitlines()] == [ONE, TWO]
    assert Said(capsys, "save", "missing", "-o", target).status == 1


def test_wrong_usage(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert Said(capsys, "pull", ONE, "--username", "me").status == 2
    assert Said(capsys, "pull", ONE, "--password-stdin").status == 2
    refused = Said(capsys, "pull", "No Name")
    assert refused.status == 1
    assert refused.err.startswith("trio-sandbox: image: 'No Name' is no name of an image")
    assert Said(capsys, "image", "inspect", ONE).status == 1
    assert Said(capsys, "run", ONE, "--pull", "sometimes", "--", "true").status == 2


@pytest.mark.parametrize("words", [["images"], ["images", "--json"], ["image", "prune"], ["image", "ls", "-q"]])
def test_looking_needs_no_event_loop(words: list[str], tmp_path: Path) -> None:
    done = run_watching_imports(f"assert run({words!r}) == 0", tmp_path)
    assert done.stderr.strip() in ("", "trio-sandbox: freed 0 B")


def test_a_shell_completes_their_names(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Said(capsys, "load", archive)
    completing = ShellComplete(program, {}, "trio-sandbox", "_COMPLETE")
    for words, start, names in (
        (["rmi"], "registry.test/o", [ONE]),
        (["image", "inspect", ONE], "", [ONE, TWO]),
        (["image", "rm"], "x", []),
    ):
        assert [item.value for item in completing.get_completions(words, start)] == names
