"""What a root file system is made of: text, paths and the values of `Image`, checked with a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.client.image import Image
from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import InvalidConfigError
from trio_sandbox.image_source import DiskImageFormat, ImageKind, ImageSource


def build(image: Any) -> SandboxConfig:
    return SandboxConfig.from_options("worker", {"image": image})


def problems_of(image: Any) -> tuple[str, ...]:
    with pytest.raises(InvalidConfigError) as caught:
        build(image)
    return caught.value.problems


@pytest.mark.parametrize(
    ("image", "kind", "disk_format"),
    [
        ("python:3.12", ImageKind.OCI, None),
        ("local/base", ImageKind.OCI, None),
        ("./folder", ImageKind.OCI, None),
        ("disk.qcow2", ImageKind.OCI, None),  # a name of a registry, as far as anyone can tell
        ("./disk.qcow2", ImageKind.DISK, DiskImageFormat.QCOW2),
        ("/DISK.RAW", ImageKind.DISK, DiskImageFormat.RAW),
        (Path("disk.vmdk"), ImageKind.DISK, DiskImageFormat.VMDK),
        (Image.disk("disk.img", format="raw"), ImageKind.DISK, DiskImageFormat.RAW),
        (Image.disk("disk.qcow2", format="raw"), ImageKind.DISK, DiskImageFormat.RAW),
        (Image.bind("folder"), ImageKind.BIND, None),
    ],
)
def test_what_an_image_means(image: Any, kind: ImageKind, disk_format: DiskImageFormat | None) -> None:
    root = build(image).root
    assert (root.kind, root.disk_format) == (kind, disk_format if kind is ImageKind.DISK else root.disk_format)
    assert build(image).has_disk_root == (kind is ImageKind.DISK)


def test_the_upper_is_4096_mib_unless_asked_for_otherwise() -> None:
    assert build("python:3.12").root.upper_size_mib == 4096
    assert build(Image.oci("python:3.12")).root == build("python:3.12").root
    assert build(Image.oci("python:3.12", upper_size_mib=8192)).root.upper_size_mib == 8192
    assert build(Image.bind("./folder", upper_size_mib=16)).root.upper_size_mib == 16


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.oci(""), ["must be 1 to 4096 bytes"]),
        (Image.oci("a\0"), ["without NUL"]),
        (Image.bind("./\udd00"), ["stand for no bytes"]),
        (Image.oci(5), ["must be str or os.PathLike, not int"]),  # type: ignore[arg-type]
        (Image.oci("x", upper_size_mib=15), ["15 is not within 16 to 1048576 MiB"]),
        (Image.oci("x", upper_size_mib=True), ["upper_size_mib: must be int, not bool"]),
        (Image.oci("", upper_size_mib=0), ["must be 1 to", "0 is not within"]),
        (Image.disk("disk.img"), ["tells no format; pass format="]),
        (Image.disk("disk.img", format="vdi", fstype="zfs"), ["fstype: 'zfs'", "format: 'vdi' is not one of qcow2"]),
        (ImageSource("tape", "x"), ["kind: 'tape' is not one of oci, disk, bind"]),
        (ImageSource(ImageKind.OCI, "x", fstype="ext4", format="raw"), ["fstype: only a disk", "format: only a disk"]),
    ],
)
def test_all_problems_are_named(image: ImageSource, words: list[str]) -> None:
    problems = problems_of(image)
    assert len(problems) == len(words)
    for problem, word in zip(problems, words, strict=True):
        assert problem.startswith("image: ") and word in problem


SOURCES = st.builds(
    ImageSource,
    st.sampled_from(ImageKind),
    st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=80),
    st.integers(16, 1 << 20),
    st.sampled_from((None, "ext4", "xfs")),
    st.sampled_from((None, *DiskImageFormat)),
).filter(lambda source: not source.problems())


@given(SOURCES)
def test_a_source_survives_json(source: ImageSource) -> None:
    config = build(source)
    again = SandboxConfig.from_json(config.to_json())
    assert again == config and isinstance(again.image, ImageSource)


@pytest.mark.parametrize(
    "plain", ['{"kind": "oci"}', '{"reference": "x"}', '{"kind": "oci", "reference": "x", "a": 1}']
)
def test_json_that_is_no_source_is_refused(plain: str) -> None:
    with pytest.raises(InvalidConfigError):
        SandboxConfig.from_json(f'{{"name": "worker", "image": {plain}}}')


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ("python:3.12", "python:3.12"),
        (Image.oci("local/base", upper_size_mib=64), "local/base"),
        ("./layout", "/somewhere/./layout"),
        (Image.oci("../a.tar"), "/somewhere/../a.tar"),
        (Image.disk("disk.raw"), "/somewhere/disk.raw"),
        (Image.bind(Path("folder")), "/somewhere/./folder"),
        (Image.bind("/folder"), "/folder"),
        (Image.disk("~/disk.raw"), "~/disk.raw"),
    ],
)
def test_relative_paths_mean_the_same_in_another_process(image: Any, reference: str) -> None:
    moved = build(image).in_folder("/somewhere")
    assert moved.root.reference == reference
    assert type(moved.image) is type(build(image).image)
    assert attrs_without_reference(moved.root) == attrs_without_reference(build(image).root)


def attrs_without_reference(source: ImageSource) -> dict[str, object]:
    return {name: value for name, value in source.to_plain().items() if name != "reference"}
