"""Snapshots on both backends, with real machines."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from tests.api.test_images import LAYER
from tests.image.images import archive_bytes, docker_files, make_image, sha256, write_layout
from tests.snapshot.stopped import CHAIN, PIECES, files_in, stopped, write_disk
from trio_sandbox import (
    Home,
    Image,
    ImageInUseError,
    ImageNotFoundError,
    InvalidConfigError,
    Patch,
    Sandbox,
    SandboxNotFoundError,
    SandboxStillRunningError,
    Snapshot,
    SnapshotAlreadyExistsError,
    SnapshotError,
    SnapshotNotFoundError,
)
from trio_sandbox.image.pin import NOTE
from trio_sandbox.snapshot import store
from trio_sandbox.snapshot.content import granules
from trio_sandbox.snapshot.description import DISK_FILE
from trio_sandbox.snapshot.save import save

pytestmark = pytest.mark.anyio

DEMO = "registry.test/demo:1"


def on_image(home: Home, chain_id: str) -> None:
    """Have a stopped sandbox that stands on these layers."""
    note = stopped(home).parent / NOTE
    note.write_text(note.read_text().replace(CHAIN, chain_id))


@pytest.fixture
def own(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.mark.usefixtures("nothing_left")
async def test_a_sandbox_goes_on_where_another_left_off(home: Home) -> None:
    async with await Sandbox.create("source", image="local/base") as source:
        await source.shell("echo kept > /root/note; echo there > /tmp/note")
        with pytest.raises(SandboxStillRunningError):
            await Snapshot.create("built", "source")
        await source.stop_and_wait()
        snapshot = await Snapshot.create("built", "source", labels={"stage": "built"})
    try:
        assert [found.name for found in await Snapshot.list({"stage": "built"})] == ["built"]
        with pytest.raises(SandboxNotFoundError):
            await Sandbox.get("source")
        async with (
            await Sandbox.create("one", snapshot="built", patches=[Patch.text("/etc/extra", "patched")]) as one,
            await Sandbox.create("two", from_snapshot=snapshot) as two,
        ):
            assert (await one.shell("cat /root/note /etc/extra; hostname")).stdout_text == "kept\npatchedone\n"
            await one.shell("echo of one > /root/note")
            assert (await two.shell("cat /root/note; hostname")).stdout_text == "kept\ntwo\n"
            await one.stop_and_wait()
            async with await Sandbox.start("one") as again:
                assert (await again.shell("cat /root/note /etc/extra")).stdout_text == "of one\npatched"
        await snapshot.verify()
    finally:
        store.remove(home, "built")


async def test_an_image_that_a_snapshot_stands_on_stays(own: Home) -> None:
    path = own.root.parent / "image.tar"
    path.write_bytes(archive_bytes(docker_files(make_image([LAYER]), [DEMO])))
    await Image.load(path, home=own)
    on_image(own, (await Image.inspect(DEMO, home=own)).chain_id)
    await Snapshot.create("built", "one", home=own)
    await Sandbox.remove("one", home=own)
    with pytest.raises(ImageInUseError, match="snapshot 'built' stands on it"):
        await Image.remove(DEMO, home=own)
    assert (await Image.prune(unused=True, home=own)).images_removed == ()
    await Snapshot.remove("built", home=own)
    await Image.remove(DEMO, home=own)


async def test_an_image_that_is_not_here_is_named_and_nothing_is_left(home: Home) -> None:
    stopped(home, "snapshot-source")
    await Snapshot.create("foreign", "snapshot-source")
    await Sandbox.remove("snapshot-source")
    try:
        with pytest.raises(ImageNotFoundError, match="with_image"):
            await Sandbox.create("one", snapshot="foreign")
        with pytest.raises(SandboxNotFoundError):
            await Sandbox.get("one")
    finally:
        store.remove(home, "foreign")


async def test_wrong_requests_are_named_together() -> None:
    for options in (
        {},
        {"image": "local/base", "snapshot": "x"},
        {"snapshot": 5},
        {"snapshot": "x", "from_snapshot": "y"},
    ):
        with pytest.raises(InvalidConfigError, match="snapshot"):
            await Sandbox.create("one", **options)
    with pytest.raises(SnapshotNotFoundError):
        await Sandbox.create("one", snapshot="no-such-snapshot")
    with pytest.raises(InvalidConfigError, match="snapshot"):
        await Sandbox.create("one", snapshot="no such")


async def test_what_has_the_name_stays_when_the_snapshot_is_not_there(own: Home) -> None:
    stopped(own)
    for snapshot in ("missing", str(own.root)):
        with pytest.raises(SnapshotNotFoundError):
            await Sandbox.create("one", snapshot=snapshot, replace=True, home=own)
    assert (await Sandbox.get("one", home=own)).status == "stopped"


async def test_looking_and_errors(own: Home) -> None:
    stopped(own)
    made = await Snapshot.create("built", "one", home=own)
    assert await Snapshot.open("built", home=own) == made == await Snapshot.open(made.path)
    assert await Snapshot.get("built", home=own) == made == await Snapshot.get(made.digest, home=own)
    assert (made.kind, made.format, made.image, made.source_sandbox) == ("disk", "raw", "local/base", "one")
    assert made.virtual_bytes == 1 << 30 and 0 < made.size_bytes < 1 << 20
    with pytest.raises(SnapshotAlreadyExistsError):
        await Snapshot.create("built", "one", home=own)
    with pytest.raises(InvalidConfigError):
        await Snapshot.get("./built", home=own)
    (made.path / DISK_FILE).write_bytes(b"")
    with pytest.raises(SnapshotError):
        await made.verify()


async def test_called_off(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is read: the thread has ended when the cancellation goes on."""
    write_disk(stopped(own), {**PIECES, 1 << 20: b"x" * (8 << 20)})
    snapshots = own.folder("snapshots")
    async with anyio.create_task_group() as group:

        def cancelling(descriptor: int, proceed: object) -> object:
            anyio.from_thread.run_sync(group.cancel_scope.cancel)
            return granules(descriptor, proceed)  # type: ignore[arg-type]

        monkeypatch.setattr("trio_sandbox.snapshot.content.granules", cancelling)
        await Snapshot.create("built", "one", home=own)
    assert group.cancel_scope.cancelled_caught
    assert files_in(snapshots) == []
    monkeypatch.undo()
    await Snapshot.create("built", "one", home=own)


@pytest.mark.parametrize("is_local", [False, True])
async def test_to_another_machine_with_its_image(own: Home, tmp_path: Path, is_local: bool) -> None:
    image = make_image([LAYER], config={"Env": ["A=1"]})
    if is_local:  # an OCI layout, as `local/…` has it
        write_layout(own.folder("images", "local", "tiny"), image)
    else:
        (tmp_path / "image.tar").write_bytes(archive_bytes(docker_files(image, [DEMO])))
        await Image.load(tmp_path / "image.tar", home=own)
    chain_id = sha256(LAYER)
    on_image(own, chain_id)
    made = await Snapshot.create("built", "one", home=own)
    archive, other = tmp_path / "built.tar.gz", Home(tmp_path / "other")
    await Snapshot.save("built", archive, with_image=True, home=own)
    loaded = await Snapshot.load(archive, name="again", home=other)
    assert (loaded.name, loaded.digest) == ("again", made.digest)
    await loaded.verify()
    (there,) = await Image.list(home=other)
    assert there.reference.startswith("localhost/snapshots/")
    assert (await Image.inspect(there.reference, home=other)).chain_id == chain_id
    with pytest.raises(SnapshotAlreadyExistsError):
        await Snapshot.load(archive, name="again", home=other)
    await Snapshot.load(archive, home=other)
    assert len(await Image.list(home=other)) == 1


async def test_an_image_that_is_not_the_snapshots(own: Home, tmp_path: Path) -> None:
    """Its name here is ours, so it can take the place of no other image."""
    stopped(own)
    made = await Snapshot.create("built", "one", home=own)
    wrong = tmp_path / "wrong.tar"
    wrong.write_bytes(archive_bytes(docker_files(make_image([LAYER]), [DEMO])))
    other = Home(tmp_path / "other")
    for content in (wrong.read_bytes(), b"no image at all"):
        wrong.write_bytes(content)
        with wrong.open("rb") as file:
            save(made._artifact, tmp_path / "archive", file.fileno())
        with pytest.raises(SnapshotError, match="the image in it"):
            await Snapshot.load(tmp_path / "archive", home=other)
        assert await Snapshot.list(home=other) == [] == await Image.list(home=other)


async def test_what_is_loaded_and_called_off_leaves_nothing(own: Home, tmp_path: Path) -> None:
    stopped(own)
    await Snapshot.create("built", "one", home=own)
    await Snapshot.save("built", tmp_path / "archive", home=own)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await Snapshot.load(tmp_path / "archive", name="again", home=own)
    assert [found.name for found in await Snapshot.list(home=own)] == ["built"]
    with anyio.CancelScope() as scope:
        scope.cancel()
        await Snapshot.save("built", tmp_path / "again", home=own)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "home", "tmp"]
