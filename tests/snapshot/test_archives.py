"""Snapshots into archives and out of them: what is damaged, cut or foreign leaves nothing."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.snapshot.stopped import DISK_SIZE, PIECES, files_in, holds
from trio_sandbox.errors import (
    InvalidConfigError,
    SnapshotAlreadyExistsError,
    SnapshotError,
    SnapshotNotFoundError,
)
from trio_sandbox.files import anonymous_copy
from trio_sandbox.home import Home
from trio_sandbox.snapshot import save as saving
from trio_sandbox.snapshot import store
from trio_sandbox.snapshot.content import GRANULE, digest_of
from trio_sandbox.snapshot.create import create
from trio_sandbox.snapshot.description import (
    DESCRIPTION_FILE,
    DISK_FILE,
    MEMORY,
    MEMORY_FILE,
    STATE_FILE,
    FileFacts,
    MachineFacts,
)
from trio_sandbox.snapshot.load import Unpacked
from trio_sandbox.snapshot.save import save
from trio_sandbox.snapshot.store import Artifact


@pytest.fixture
def made(home: Home, one: str) -> Artifact:
    return create("first", one, home, labels={"a": "b"})


@pytest.fixture
def archive(made: Artifact, tmp_path: Path) -> Path:
    path = tmp_path / "first.tar.gz"
    save(made, path)
    return path


@pytest.fixture
def other(tmp_path: Path) -> Home:
    """Another machine."""
    return Home(tmp_path / "other")


@contextmanager
def unpacked(archive: Path, home: Home, **options: Any) -> Iterator[Unpacked]:
    with closing(Unpacked(archive)) as found:
        found.read(home, **options)
        yield found


def load(archive: Path, home: Home) -> Artifact:
    with unpacked(archive, home) as found:
        place = store.folder_of(home) / found.name
        return store.publish(home, place, found.description, found.files, force=False)


def test_there_and_back(made: Artifact, archive: Path, other: Home) -> None:
    assert archive.stat().st_size < sum(map(len, PIECES.values())) + 10_000  # holes take no room
    loaded = load(archive, other)
    assert loaded.description == made.description and loaded.name == "first"
    assert holds(loaded.path / DISK_FILE)
    assert loaded.disk_bytes < 1 << 20
    loaded.verify()


def test_several_files(made: Artifact, home: Home, other: Home, tmp_path: Path) -> None:
    """As a snapshot with memory has them."""
    with made.opened() as files, (made.path / "memory").open("w+b") as memory:
        memory.truncate(1 << 30)
        memory.seek(1 << 29)
        memory.write(b"in memory")
        memory.flush()
        parts = {DISK_FILE: files[DISK_FILE], MEMORY_FILE: memory.fileno(), STATE_FILE: files[DISK_FILE]}
        facts = {name: FileFacts(os.fstat(part).st_size, digest_of(part)) for name, part in parts.items()}
        machine = MachineFacts(
            acceleration="tcg", arch="x", qemu_version="9", cpus=1, memory_mib=1024, tsc_khz=0, first_session=1
        )
        description = attrs.evolve(made.description, kind=MEMORY, machine=machine, files=facts)
        place = store.folder_of(home) / "both"
        copies = {name: anonymous_copy(part, place.parent) for name, part in parts.items()}
        both = store.publish(home, place, description, copies, force=False)
        for copy in copies.values():
            os.close(copy)
    save(both, tmp_path / "archive")
    loaded = load(tmp_path / "archive", other)
    loaded.verify()
    assert loaded.description == description
    assert sorted(os.listdir(loaded.path)) == sorted([DESCRIPTION_FILE, *parts])


def test_the_same_snapshot_makes_the_same_archive(made: Artifact, archive: Path, tmp_path: Path) -> None:
    save(made, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == archive.read_bytes()


def test_any_tar_unpacks_it(archive: Path, tmp_path: Path) -> None:
    where = tmp_path / "by-tar"
    where.mkdir()
    subprocess.run(["tar", "-xzf", archive, "-C", where], check=True)
    Artifact.at(where / "first").verify()


def test_what_tar_packs_again_is_taken(made: Artifact, other: Home, tmp_path: Path) -> None:
    path = tmp_path / "by-tar.tgz"
    names = [f"first/{DESCRIPTION_FILE}", f"first/{DISK_FILE}"]
    subprocess.run(["tar", "-czSf", path, "-C", made.path.parent, *names], check=True)
    load(path, other).verify()


def test_a_moved_folder_may_have_any_name(made: Artifact, other: Home, tmp_path: Path) -> None:
    moved = made.path.rename(tmp_path / "a b")
    save(Artifact.at(moved), tmp_path / "archive")
    assert load(tmp_path / "archive", other).name == "snapshot"


def test_many_parts_become_fewer(made: Artifact, other: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (made.path / DISK_FILE).open("r+b") as file:
        for number in range(0, 400, 2):
            file.seek(number * GRANULE * (1 + number // 100))
            file.write(b"x")
    monkeypatch.setattr(saving, "MAX_EXTENTS", 20)
    with made.opened() as files:
        digest = digest_of(files[DISK_FILE])
        assert len(saving._extents(files[DISK_FILE], lambda: None)) <= 20
    facts = attrs.evolve(made.description.files[DISK_FILE], digest=digest)
    changed = attrs.evolve(made, description=attrs.evolve(made.description, files={DISK_FILE: facts}))
    save(changed, tmp_path / "archive")
    load(tmp_path / "archive", other).verify()


def test_damaged_snapshots_are_not_saved(made: Artifact, tmp_path: Path) -> None:
    with (made.path / DISK_FILE).open("r+b") as file:
        file.write(b"damage")
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with pytest.raises(SnapshotError, match="damaged"):
        save(made, target)
    assert target.read_bytes() == b"old"
    for wrong in (tmp_path, tmp_path / "missing" / "x"):
        with pytest.raises(InvalidConfigError, match="archive"):
            save(made, wrong)


def refused(path: Path, home: Home, words: str = "snapshot", **options: Any) -> None:
    """An archive is refused, and nothing is made of it."""
    with pytest.raises(SnapshotError, match=words), unpacked(path, home, **options):
        pass
    assert [name for name in files_in(home.root) if name not in ("run", "run/locks", "snapshots", "scratch")] == []


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_an_archive_that_is_cut_off(archive: Path, other: Home, part: float) -> None:
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * part)])
    refused(archive, other)


def test_an_archive_that_is_cut_anywhere(archive: Path, other: Home) -> None:
    plain = gzip.decompress(archive.read_bytes())
    for size in range(0, len(plain) - 512, 13_577):
        archive.write_bytes(gzip.compress(plain[:size], 1))
        refused(archive, other)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.booleans())
def test_a_byte_that_is_another(archive: Path, other: Home, where: float, change: int, is_packed: bool) -> None:
    """Damage is noticed, or does not matter: what is loaded is what was saved."""
    whole = archive.read_bytes()
    data = bytearray(whole if is_packed else gzip.decompress(whole))
    data[int(len(data) * where)] ^= change
    damaged = archive.with_name("damaged")
    damaged.write_bytes(data if is_packed else gzip.compress(bytes(data), 1))
    try:
        with unpacked(damaged, other) as found:
            disk = found.description.files[DISK_FILE]
            assert digest_of(found.files[DISK_FILE]) == disk.digest
    except SnapshotError:
        pass
    assert files_in(store.folder_of(other)) == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=2000), st.booleans())
def test_any_bytes_are_refused(other: Home, tmp_path: Path, data: bytes, is_packed: bool) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(gzip.compress(data, 1) if is_packed else data)
    refused(path, other)


Member = tuple[str, bytes]


def packed(path: Path, members: list[Member], **kinds: bytes) -> Path:
    """An archive of somebody else."""
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as file:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.type = kinds.get(name.rpartition("/")[2].partition(".")[0], tarfile.REGTYPE)
            file.addfile(member, io.BytesIO(data))
    return path


def small(made: Artifact) -> tuple[bytes, bytes]:
    """A description and a disk that fit each other."""
    path = made.path / "small"
    path.write_bytes(b"disk" * 1000)
    with path.open("rb") as file:
        digest = digest_of(file.fileno())
    plain = json.loads(made.description.to_bytes())
    plain["files"] = {DISK_FILE: {"size": 4000, "digest": digest}}
    return json.dumps(plain).encode(), path.read_bytes()


FIRST, DISK = f"s/{DESCRIPTION_FILE}", f"s/{DISK_FILE}"
FOREIGN: dict[str, tuple[Callable[[bytes, bytes], list[Member]], str]] = {
    "nothing": (lambda json, disk: [], "does not begin with"),
    "an image": (lambda json, disk: [("manifest.json", b"[]")], "does not begin with"),
    "the disk first": (lambda json, disk: [(DISK, disk), (FIRST, json)], "does not begin with"),
    "no disk": (lambda json, disk: [(FIRST, json)], "is missing"),
    "two disks": (lambda json, disk: [(FIRST, json), (DISK, disk), (DISK, disk)], "does not belong"),
    "two images": (lambda json, disk: [(FIRST, json), ("image.tar", b""), ("image.tar", b"")], "does not belong"),
    "another size": (lambda json, disk: [(FIRST, json), (DISK, disk[1:])], "3999 bytes instead of 4000"),
    "another content": (lambda json, disk: [(FIRST, json), (DISK, b"x" + disk[1:])], "is damaged"),
    "another file": (lambda json, disk: [(FIRST, json), (DISK, disk), ("s/more", b"")], "does not belong"),
    "a way out": (lambda json, disk: [(FIRST, json), (f"../{DISK_FILE}", disk)], "does not belong"),
    "a way out by name": (lambda json, disk: [(f"../{DESCRIPTION_FILE}", json)], "name"),
    "a hidden name": (lambda json, disk: [(f".s/{DESCRIPTION_FILE}", json)], "name"),
    "another folder": (lambda json, disk: [(FIRST, json), (f"t/{DISK_FILE}", disk)], "does not belong"),
    "a bad description": (lambda json, disk: [(FIRST, b"{}")], "version"),
    "a long description": (lambda json, disk: [(FIRST, bytes(5 << 20))], "more than"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_archives(made: Artifact, other: Home, tmp_path: Path, kind: str) -> None:
    members, words = FOREIGN[kind]
    good = packed(tmp_path / "good", [(FIRST, small(made)[0]), (DISK, small(made)[1])])
    with unpacked(good, other) as found:
        assert found.name == "s"
    refused(packed(tmp_path / "bad", members(*small(made))), other, words)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_only_files_are_taken(made: Artifact, other: Home, tmp_path: Path, kind: bytes) -> None:
    description, _ = small(made)
    refused(packed(tmp_path / "bad", [(FIRST, description), (DISK, b"")], upper=kind), other, "does not belong")
    refused(packed(tmp_path / "bad", [(FIRST, b"")], snapshot=kind), other, "does not begin")


def test_an_archive_is_bounded(made: Artifact, archive: Path, other: Home, tmp_path: Path) -> None:
    refused(archive, other, "more than 100000 bytes", limit=100_000)
    bomb = packed(tmp_path / "bomb", [(FIRST, small(made)[0]), ("image.tar", bytes(3 << 20))])
    assert bomb.stat().st_size < 20_000
    refused(bomb, other, "more than", limit=1 << 20)


def test_what_follows_the_end(archive: Path, other: Home) -> None:
    plain = gzip.decompress(archive.read_bytes())
    archive.write_bytes(gzip.compress(plain + bytes(10_240), 1))
    with unpacked(archive, other):
        pass
    archive.write_bytes(gzip.compress(plain + b"more", 1))
    refused(archive, other, "follows the end")


def test_what_is_no_file_at_all(other: Home, tmp_path: Path) -> None:
    with pytest.raises(SnapshotNotFoundError):
        Unpacked(tmp_path / "missing").read(other)
    refused(tmp_path, other)
    os.mkfifo(tmp_path / "fifo")
    refused(tmp_path / "fifo", other)


def test_a_name_that_is_taken_is_told_before_all_is_read(archive: Path, home: Home, other: Home) -> None:
    def accept(name: str) -> None:
        store.require_room(home, store.folder_of(home) / name, force=False)

    archive.write_bytes(archive.read_bytes()[:20_000])  # the rest is never looked at
    with pytest.raises(SnapshotAlreadyExistsError), unpacked(archive, other, accept=accept):
        pass


class CalledOff(Exception):
    """Nobody wants it any more."""


def test_called_off(made: Artifact, archive: Path, other: Home, tmp_path: Path) -> None:
    def read(proceed: Callable[[], None]) -> None:
        with closing(Unpacked(archive)) as found:
            found.read(other, proceed)

    def write(proceed: Callable[[], None]) -> None:
        save(made, tmp_path / "new", proceed=proceed)

    for work in (write, read):
        calls = 0
        while True:
            left = calls

            def proceed() -> None:
                nonlocal left
                left -= 1
                if left < 0:
                    raise CalledOff

            try:
                work(proceed)
            except CalledOff:
                assert (tmp_path / "new").exists() == (work is read)
                assert files_in(store.folder_of(other)) == []
                calls += 1
            else:
                break
        assert calls > 3


FULL = """
import sys
from pathlib import Path
from trio_sandbox.errors import StorageError
from trio_sandbox.files import anonymous_copy
from trio_sandbox.home import Home
from trio_sandbox.snapshot.load import Unpacked
from trio_sandbox.snapshot.save import save
from trio_sandbox.snapshot.store import Artifact

snapshot, archive, small = map(Path, sys.argv[1:])
for work in (lambda: save(Artifact.at(snapshot), small / "archive"), lambda: Unpacked(archive).read(Home(small))):
    try:
        work()
    except StorageError as error:
        print(error.errno, sorted(path.name for path in small.rglob("*")))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk(made: Artifact, archive: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    script = 'mount -t tmpfs -o size=100k tmpfs "$0" && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, str(small), sys.executable, "-c", FULL, str(made.path)]
    done = subprocess.run([*argv, str(archive), str(small)], capture_output=True, text=True, check=False)
    assert done.stdout == "28 []\n28 ['snapshots']\n", done.stderr


def test_the_disk_has_the_size_that_it_had(archive: Path, other: Home) -> None:
    with unpacked(archive, other) as found:
        assert os.fstat(found.files[DISK_FILE]).st_size == DISK_SIZE
