"""What an `image=` value means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.image.images import Item, layer_tar, make_image, write_layout
from trio_sandbox.errors import ImageNotFoundError, InvalidConfigError, SandboxError
from trio_sandbox.home import Home
from trio_sandbox.image.reference import locate_image, names_registry_image, plain_folder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def a_layout(path: Path) -> Path:
    return write_layout(path, make_image([layer_tar([Item("a")])]))


def test_local_names(home: Home) -> None:
    folder = a_layout(home.images / "local" / "my-image_1.0")
    for text, tag in (("local/my-image_1.0", None), ("local/my-image_1.0:v2", "v2")):
        found = locate_image(text, home)
        assert (found.path, found.is_folder, found.tag, found.reference) == (folder, True, tag, text)


@pytest.mark.parametrize(
    "text", ["local/", "local/A", "local/a/b", "local/../x", "local/a:", "local/a:b:c", "local/.a"]
)
def test_malformed_local_names(home: Home, text: str) -> None:
    with pytest.raises(InvalidConfigError, match="local/NAME"):
        locate_image(text, home)


def test_a_local_image_that_is_not_there(home: Home) -> None:
    with pytest.raises(ImageNotFoundError, match="trio-sandbox setup"):
        locate_image("local/base", home)
    with pytest.raises(ImageNotFoundError, match="no layout"):
        locate_image("local/other", home)


def test_paths(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = a_layout(tmp_path / "layout")
    archive = tmp_path / "image.tar"
    archive.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in (str(layout), "./layout", "~/layout", layout, Path("layout"), f"../{tmp_path.name}/layout"):
        found = locate_image(value, home)
        assert found.is_folder
        assert os.path.samefile(found.path, layout)
    assert not locate_image(archive, home).is_folder


@pytest.mark.parametrize("mark", [":", "@"])
def test_tags_of_paths(home: Home, tmp_path: Path, mark: str) -> None:
    layout = a_layout(tmp_path / "layout")
    assert locate_image(f"{layout}{mark}v1.2", home).tag == "v1.2"
    # A name that exists as it stands is never split.
    whole = a_layout(tmp_path / f"odd{mark}name")
    assert (locate_image(whole, home).path, locate_image(whole, home).tag) == (whole, None)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ("disk.qcow2", InvalidConfigError, "reads like a file; a path starts with"),
        ("", InvalidConfigError, "empty"),
        ("a\0b", InvalidConfigError, "NUL"),
        ("x" * 5000, InvalidConfigError, "too long"),
        (5, InvalidConfigError, "int"),
        (None, InvalidConfigError, "NoneType"),
        ("./nothing.tar", ImageNotFoundError, "no such"),
        ("/nothing:tag", ImageNotFoundError, "no such"),
        ("/dev/null/x", ImageNotFoundError, "no such"),
        ("~no-such-user-here/x", InvalidConfigError, "home"),
        ("/dev/null", InvalidConfigError, "neither"),
        ("/" + "n" * 300, InvalidConfigError, "too long"),
    ],
)
def test_refusals(home: Home, value: object, error: type[SandboxError], words: str) -> None:
    with pytest.raises(error, match=words):
        locate_image(value, home)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image", "is_one"),
    [
        ("python:3.12", True),
        ("registry.test:5000/a/b@sha256:" + "0" * 64, True),
        ("Not An Image!", True),  # for whoever knows the names to refuse
        ("local/base", False),
        ("./image", False),
        ("~/image", False),
        ("disk.qcow2", False),
    ],
)
def test_names_of_registries(image: str, is_one: bool) -> None:
    assert names_registry_image(image) is is_one


@pytest.mark.parametrize("name", ["disk.qcow2", "disk.raw", "DISK.VMDK"])
def test_disk_images_that_exist(home: Home, tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InvalidConfigError, match=r"use Image.disk"):
        locate_image(tmp_path / name, home)


def test_a_plain_folder(home: Home, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"use Image.bind"):
        locate_image(tmp_path, home)
    assert plain_folder(str(tmp_path)) == tmp_path
    (tmp_path / "file").touch()
    for other in ("local/base", "./none", str(tmp_path / "file"), str(a_layout(tmp_path / "layout")), "~nobody-here"):
        assert plain_folder(other) is None
