"""Every code block of the README and of docs/ does what its page says. docs/writing.md has the conventions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import (
    PAGES,
    ROOT,
    RUN,
    blocks,
    blocks_of,
    commands,
    is_conftest,
    is_test,
    looks_like,
    wants_sandbox,
)
from trio_sandbox.home import Home

NOT_RUN = Path(__file__).with_name("not_run.txt")
WITH_CODE = [page for page in PAGES if any(block.language in RUN for block in blocks(page))]


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder with no sandboxes in it: pages choose plain names. What is dear to make comes from the usual one;
    a page may prune the cache, so that is a copy.
    """
    own, usual = tmp_path_factory.mktemp("data"), Home.default()
    for name in ("kernels", "initramfs", "host", "images", "templates"):
        (own / name).symlink_to(usual.folder(name))
    own.joinpath("cache").mkdir(mode=0o700)
    shutil.copytree(usual.rootfs, own / "cache" / "rootfs")
    yield own
    shutil.rmtree(own)


@pytest.mark.vm
@pytest.mark.parametrize("page", WITH_CODE)
def test_a_page(page: str, data_folder: Path, tmp_path: Path) -> None:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PYTEST")},
        "TRIO_SANDBOX_HOME": str(data_folder),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "COLUMNS": "100",
    }
    argv = [sys.executable, "-W", "error", "-m", "tests.docs.run_page", page]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_does_not_run_is_on_one_list() -> None:
    """Each is a promise that nobody checks: few, and each with its reason."""
    found = [f"{page}: {block.reason}" for page in PAGES for block in blocks(page) if block.reason]
    assert found == NOT_RUN.read_text().splitlines(), f"put it right in {NOT_RUN.relative_to(ROOT)}, if it must be"
    assert len(found) <= 12


@pytest.mark.parametrize("page", PAGES)
def test_languages_are_named_as_they_are_run(page: str) -> None:
    others = {"py", "python3", "pycon", "bash", "shell", "zsh"}
    assert [block.where for block in blocks(page) if block.language in others] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_comment_belongs_to_a_block(page: str) -> None:
    text = re.sub(r"^````.*?^````$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    assert text.count("\n<!-- not run") == sum(bool(block.reason) for block in blocks(page))
    assert text.count("\n<!-- setup") == sum(bool(block.setup) for block in blocks(page))


def test_blocks_and_their_comments() -> None:
    text = "a\n<!-- setup\nx = 1\n-->\n```python\nprint(x)\n```\n\n<!-- not run: no\nnetwork -->\n\n```sh\nls\n```\n"
    first, second = blocks_of("page", text)
    assert (first.line, first.language, first.setup, first.code, first.reason) == (
        5,
        "python",
        "x = 1",
        "print(x)\n",
        "",
    )
    assert (second.language, second.reason, second.setup) == ("sh", "no network", "")
    assert blocks_of("page", "````markdown\n```python\n1\n```\n````\n") == []
    assert [block.file for block in blocks_of("page", "```python\n# a.py\n```\n```toml\nb = 1\n```\n")] == ["a.py", ""]


def test_commands_and_what_they_print() -> None:
    assert commands("$ a \\\n  b\nout\n\nmore\n$ c\n") == [("a \\\n  b", "out\n\nmore\n"), ("c", "")]
    with pytest.raises(ValueError, match="begins with"):
        commands("ls\n")
    assert looks_like("a\n...\nz\n", "a\nb\nc\nz\n")
    assert looks_like("took ... s", "took 1.5 s\n")
    assert not looks_like("a", "ab")


def test_what_a_block_is() -> None:
    assert is_test("async def test_x(): ...")
    assert is_conftest("@pytest.fixture(scope='session')\ndef x(): ...")
    assert is_test("@pytest.fixture\ndef x(): ...")
    assert not is_conftest("@pytest.fixture\ndef x(): ...\ndef test_y(x): ...")
    assert not is_test("def main(): ...")
    assert wants_sandbox("await sandbox.stop()")
    assert wants_sandbox("await sandbox.stop()\nsandbox = 1")
    assert not wants_sandbox("async with open() as sandbox:\n    await sandbox.stop()")
    assert not wants_sandbox("await other.stop()")
