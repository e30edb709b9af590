"""The documentation as a site."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trio_sandbox
from trio_sandbox import testing

ROOT = Path(__file__).parents[2]
FETCHED = re.compile(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="?(?:https?:)?//[^>]*>', re.IGNORECASE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there_and_in_the_navigation(site: Path) -> None:
    index = (site / "index.html").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        address = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert (site / address).exists()
        assert f'href="{address}"' in index or f"href={address}" in index, f"{address} is in no section of mkdocs.yml"


def test_every_public_name_has_its_place(site: Path) -> None:
    pages = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    named = [f"trio_sandbox.{name}" for name in trio_sandbox.__all__]
    named += [f"trio_sandbox.testing.{name}" for name in testing.__all__]
    assert [name for name in named if f'id="{name}"' not in pages] == []


def test_a_reader_needs_no_network(site: Path) -> None:
    fetched = [found for page in site.rglob("*.html") for found in FETCHED.findall(page.read_text())]
    assert fetched == []
    assert not any(re.search(r"url\((?:https?:)?//|@import", sheet.read_text()) for sheet in site.rglob("*.css"))
