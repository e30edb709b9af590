"""What `snapshot.json` may say: our own comes back equal, and anything else is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.snapshot.stopped import PIN
from trio_sandbox.image.oci import ImageConfig
from trio_sandbox.image.pin import Pin
from trio_sandbox.snapshot.description import (
    DISK,
    DISK_FILE,
    MAX_DESCRIPTION_BYTES,
    MAX_FILE_BYTES,
    MEMORY,
    MEMORY_FILE,
    STATE_FILE,
    Description,
    FileFacts,
    MachineFacts,
    SnapshotFault,
)

DIGESTS = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
CONFIGS = st.builds(
    ImageConfig,
    env=st.lists(TEXTS, max_size=3).map(tuple),
    entrypoint=st.lists(TEXTS, max_size=3).map(tuple),
    cmd=st.lists(TEXTS, max_size=3).map(tuple),
    working_dir=TEXTS,
    user=TEXTS,
    labels=st.dictionaries(TEXTS, TEXTS, max_size=3),
    stop_signal=TEXTS,
)
FILES = st.builds(FileFacts, size=st.integers(0, MAX_FILE_BYTES), digest=DIGESTS)
DISKS = st.builds(
    Description,
    kind=st.just(DISK),
    created_ns=st.integers(0, (1 << 63) - 1),
    source=NAMES,
    image=st.builds(Pin, TEXTS, DIGESTS, st.just("") | DIGESTS, CONFIGS),
    files=st.dictionaries(st.from_regex(r"[a-r][a-z0-9._-]{0,20}", fullmatch=True), FILES, max_size=3).flatmap(
        lambda others: FILES.map(lambda disk: {**others, DISK_FILE: disk})
    ),
    labels=st.dictionaries(NAMES, TEXTS, max_size=3),
)
COUNTS = st.integers(0, (1 << 32) - 1)
MACHINES = st.builds(
    MachineFacts,
    **dict.fromkeys(("acceleration", "arch", "qemu_version"), TEXTS),
    **dict.fromkeys(("cpus", "memory_mib", "tsc_khz", "first_session"), COUNTS),
)


def with_memory(disk: Description, machine: MachineFacts, memory: FileFacts, state: FileFacts) -> Description:
    files = {**disk.files, MEMORY_FILE: memory, STATE_FILE: state}
    return attrs.evolve(disk, kind=MEMORY, machine=machine, files=files)


DESCRIPTIONS = DISKS | st.builds(with_memory, DISKS, MACHINES, FILES, FILES)
ONE = Description(
    kind=DISK, created_ns=1, source="one", image=PIN, files={DISK_FILE: FileFacts(5, "sha256:" + "0" * 64)}
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DESCRIPTIONS)
def test_what_was_written_is_read(description: Description) -> None:
    read = Description.parse(description.to_bytes())
    assert read == description
    assert read.digest == description.digest
    assert Description.parse(json.dumps(json.loads(description.to_bytes()), indent=1).encode()).digest == read.digest


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = [field.name for field in attrs.fields(Description)]


@settings(deadline=None)
@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(SnapshotFault):
        Description.parse(data)


@settings(deadline=None)
@given(st.sampled_from(KEYS), JSON)
def test_one_key_that_is_anything_is_refused_or_taken_as_it_is(key: str, value: Any) -> None:
    plain = json.loads(ONE.to_bytes())
    plain[key] = value
    try:
        read = Description.parse(json.dumps(plain).encode())
    except SnapshotFault:
        return
    assert json.loads(read.to_bytes()) == plain


def put(*path: str) -> Callable[[dict[str, Any], Any], None]:
    def change(plain: dict[str, Any], value: Any) -> None:
        for key in path[:-1]:
            plain = plain[key]
        plain[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "value", "words"),
    [
        (put("version"), 2, "version is 2"),
        (put("version"), True, "version is True"),
        (put("kind"), "tape", "'tape' in 'raw'"),
        (put("format"), "qcow2", "'disk' in 'qcow2'"),
        (put("created_ns"), -1, "created_ns"),
        (put("source"), "../etc", "source"),
        (put("kind"), "memory", "memory.ram is missing"),
        (put("machine"), {}, "machine"),
        (put("more"), 1, "'more'"),
        (put("files"), {}, "1 to 16 files"),
        (put("files"), {"other": {}}, "upper.ext4 is missing"),
        (put("files", "../x"), {"size": 1, "digest": "sha256:" + "0" * 64}, "no name of a file"),
        (put("files", "snapshot.json"), {"size": 1, "digest": "sha256:" + "0" * 64}, "no name of a file"),
        (put("files", DISK_FILE, "size"), MAX_FILE_BYTES + 1, "size"),
        (put("files", DISK_FILE, "size"), 1.0, "size"),
        (put("files", DISK_FILE, "digest"), "md5:0", "digest"),
        (put("files", DISK_FILE, "more"), 1, "nothing else"),
        (put("image", "chain_id"), "sha256:../../x", "chain_id"),
        (put("image", "manifest_digest"), "x", "manifest_digest"),
        (put("image", "reference"), 5, "reference"),
        (put("image", "more"), 5, "nothing else"),
        (put("image", "config", "env"), "A=1", "env"),
        (put("image", "config", "user"), "a\0b", "user"),
        (put("image", "config", "labels"), {"a": 1}, "labels"),
        (put("image", "config", "more"), 1, "config"),
        (put("labels"), {"a b": "c"}, "labels"),
        (put("labels"), {f"l{number}": "" for number in range(300)}, "300 are too many"),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[dict[str, Any], Any], None], value: Any, words: str) -> None:
    plain = json.loads(ONE.to_bytes())
    change(plain, value)
    with pytest.raises(SnapshotFault) as caught:
        Description.parse(json.dumps(plain).encode())
    assert words in str(caught.value)


def test_it_is_bounded() -> None:
    with pytest.raises(SnapshotFault, match="more than"):
        Description.parse(b" " * (MAX_DESCRIPTION_BYTES + 1))
    with pytest.raises(SnapshotFault, match="no JSON"):
        Description.parse(b"[" * 1_000_000)


def test_the_digest_covers_all_of_it() -> None:
    other = FileFacts(5, "sha256:" + "1" * 64)
    changes: list[dict[str, Any]] = [
        {"created_ns": 2},
        {"source": "two"},
        {"labels": {"a": "b"}},
        {"files": {DISK_FILE: other}},
        {"image": attrs.evolve(PIN, reference="other")},
    ]
    assert len({ONE.digest, *(attrs.evolve(ONE, **change).digest for change in changes)}) == len(changes) + 1
