"""Patches and scripts as values: what is wrong with them is named before anything is created."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trio_sandbox import InvalidConfigError, Patch, PatchConfig, PatchKind
from trio_sandbox.config import SandboxConfig
from trio_sandbox.patch import CONTENT_LIMIT, ELSEWHERE, PATCHES_LIMIT
from trio_sandbox.patch_sources import require_sources
from trio_sandbox.scripts import SCRIPTS_LIMIT, SCRIPTS_SIZE_LIMIT, script_file


def build(**options: Any) -> SandboxConfig:
    return SandboxConfig.from_options("worker", {"image": "local/base", **options})


def problems(**options: Any) -> tuple[str, ...]:
    with pytest.raises(InvalidConfigError) as caught:
        build(**options)
    return tuple(caught.value.problems)


def test_each_factory_makes_its_kind() -> None:
    made = [
        Patch.text("/a", "é", mode=0o600, replace=True),
        Patch.file("/a", memoryview(b"\0")),  # type: ignore[arg-type]  # as good as bytes
        Patch.append("/a", "b"),
        Patch.copy_file(Path("/src"), "/dst", mode=0o4755),
        Patch.copy_dir("src", "/dst", replace=True),
        Patch.mkdir("/a", mode=0o1777),
        Patch.remove("/a"),
        Patch.symlink("../anywhere", "/link"),
    ]
    assert {patch.kind for patch in made} == set(PatchKind)
    assert build(patches=made).patches == tuple(made)
    assert made[0].data == "é".encode() and made[1].content == b"\0"
    assert [patch.guest_path for patch in made[3:5]] == ["/dst", "/dst"]


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        (Patch.text("a", "x"), "'a' is not an absolute path"),
        (Patch.text("", "x"), "must be 1 to 4095 bytes"),
        (Patch.text("/", "x"), "not be the root itself"),
        (Patch.text("/a/../b", "x"), "must not hold '..'"),
        (Patch.text("/a\0b", "x"), "without NUL"),
        (Patch.text("/" + "n" * 256, "x"), "more than 255 bytes"),
        (Patch.text("/a" * 2048, "x"), "must be 1 to 4095 bytes"),
        (Patch.text("/proc/sys/kernel/panic", "x"), "/proc is not on the sandbox's disk"),
        (Patch.mkdir("//./tmp/a"), "/tmp is not on the sandbox's disk"),
        (Patch.text("/a", b"bytes"), "content: must be str, not bytes"),  # type: ignore[arg-type]
        (Patch.file("/a", "text"), "content: must be bytes, not str"),  # type: ignore[arg-type]
        (Patch.text("/a", "\ud800"), "use Patch.file for bytes"),
        (Patch.text("/a", None), "content: required"),  # type: ignore[arg-type]
        (Patch.text("/a", "x", mode=0o10000), "0 to 0o7777"),
        (Patch.text("/a", "x", mode=True), "0 to 0o7777"),
        (Patch.text("/a", "x", replace=1), "replace: must be bool, not int"),  # type: ignore[arg-type]
        (Patch.copy_file(5, "/a"), "src: must be str, not int"),  # type: ignore[arg-type]
        (Patch.symlink("", "/a"), "target: must be 1 to"),
        (PatchConfig("mkdir"), "mkdir: path: required"),
        (PatchConfig("mkdir", path="/a", replace=True), "this kind of patch has none"),
        (PatchConfig("remove", path="/a", mode=0o644), "mode: this kind"),
        (PatchConfig("remove", path="/a", content="x"), "content: this kind"),
        (PatchConfig("remove", path="/a", src="x"), "src: this kind"),
        (PatchConfig("chmod", path="/a"), "'chmod' is not one of text, file"),
        ("mkdir /a", "must be PatchConfig, not str; use Patch"),
    ],
)
def test_one_problem(patch: Any, words: str) -> None:
    (problem,) = problems(patches=[Patch.mkdir("/fine"), patch])
    assert problem.startswith("patches[1]: ") and words in problem


def test_all_problems_are_named_at_once() -> None:
    assert len(problems(patches=[Patch.text("a", "x"), Patch.mkdir("/tmp/a"), Patch.remove("/")], cpus=0)) == 4
    assert "must be a list" in problems(patches="/etc/motd")[0]
    assert str(PATCHES_LIMIT) in problems(patches=[Patch.remove("/a")] * (PATCHES_LIMIT + 1))[0]
    half = "x" * (CONTENT_LIMIT // 2 + 1)
    assert "use Patch.copy_file for more" in problems(patches=[Patch.text("/a", half), Patch.text("/b", half)])[0]


names = st.text(min_size=1, max_size=40).filter(lambda name: "/" not in name and name not in (".", ".."))


@given(st.lists(names, min_size=1, max_size=6), st.text(max_size=3))
def test_a_path_is_accepted_only_if_it_stays_where_it_says(parts: list[str], slashes: str) -> None:
    """What is accepted is absolute, has no name that goes up, and is on the disk."""
    path = "/" + "/".join(parts) + "/" * len(slashes)
    found = Patch.mkdir(path).problems()
    raw = [name for name in os.fsencode(path).split(b"/") if name not in (b"", b".")] if _encodes(path) else []
    good = (
        bool(raw)
        and "\0" not in path
        and all(len(name) <= 255 for name in raw)
        and os.fsdecode(raw[0]) not in ELSEWHERE
    )
    assert (found == []) == good


def _encodes(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


paths = st.sampled_from(["/a", "/b/c", "/ü", "/x\udcff"])
modes = st.none() | st.integers(0, 0o7777)
patches = st.one_of(
    st.builds(Patch.text, paths, st.text(max_size=20), mode=modes, replace=st.booleans()),
    st.builds(Patch.file, paths, st.binary(max_size=20), mode=modes, replace=st.booleans()),
    st.builds(Patch.append, paths, st.text(max_size=20)),
    st.builds(Patch.copy_file, paths, paths, mode=modes, replace=st.booleans()),
    st.builds(Patch.copy_dir, paths, paths, replace=st.booleans()),
    st.builds(Patch.mkdir, paths, mode=modes),
    st.builds(Patch.remove, paths),
    st.builds(Patch.symlink, paths, paths, replace=st.booleans()),
)


@given(st.lists(patches, max_size=5), st.dictionaries(names, st.text(max_size=20), max_size=4))
def test_patches_and_scripts_survive_json(made: list[PatchConfig], scripts: dict[str, str]) -> None:
    """A sandbox that is kept has its configuration in the store, and a process of its own is told it as JSON."""
    try:
        config = build(patches=made, scripts=scripts)
    except InvalidConfigError:
        assume(False)
        raise
    assert SandboxConfig.from_json(json.dumps(json.loads(config.to_json()))) == config


def test_relative_sources_are_meant_from_the_folder_of_whoever_asked() -> None:
    config = build(patches=[Patch.copy_file("a", "/a"), Patch.copy_dir("/abs", "/b"), Patch.remove("/c")])
    assert [patch.src for patch in config.in_folder("/home/me").patches] == ["/home/me/a", "/abs", None]


def test_sources_are_looked_at_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "fifo")
    good = [Patch.copy_file(tmp_path / "file", "/a"), Patch.copy_dir(tmp_path, "/b"), Patch.remove("/c")]
    require_sources(good)
    bad = [
        Patch.copy_file(tmp_path / "none", "/a"),
        Patch.copy_file(tmp_path, "/a"),
        Patch.copy_file(tmp_path / "fifo", "/a"),
        Patch.copy_dir(tmp_path / "file", "/a"),
    ]
    with pytest.raises(InvalidConfigError) as caught:
        require_sources([*good, *bad])
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        f"patches[{index}]" for index in range(3, 7)
    ]
    assert [problem.rpartition(": ")[2] for problem in caught.value.problems] == [
        "No such file or directory",
        "not a regular file",
        "not a regular file",
        "not a folder",
    ]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0", "n" * 256, "\ud800", 5])
def test_names_of_scripts(name: Any) -> None:
    (problem,) = problems(scripts={name: "true"})
    assert problem.startswith("scripts: ")


def test_bodies_of_scripts() -> None:
    assert "a body must be str, not bytes" in problems(scripts={"a": b"true"})[0]
    assert "UTF-8" in problems(scripts={"a": "\ud800"})[0]
    assert "must be a mapping" in problems(scripts=["true"])[0]
    assert str(SCRIPTS_LIMIT) in problems(scripts={f"s{number}": "" for number in range(SCRIPTS_LIMIT + 1)})[0]
    assert str(SCRIPTS_SIZE_LIMIT) in problems(scripts={"a": "x" * SCRIPTS_SIZE_LIMIT, "b": "x"})[0]


def test_the_first_line_of_a_script() -> None:
    assert script_file("echo hi", "/bin/dash") == b"#!/bin/dash\necho hi"
    assert script_file("#!/usr/bin/python3\nprint()", "/bin/sh") == b"#!/usr/bin/python3\nprint()"
