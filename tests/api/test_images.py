"""The images of the cache, on both backends: what long work leaves when it is called off."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anyio
import pytest

from tests.image.images import Item, archive_bytes, docker_files, layer_tar, make_image, sha256
from trio_sandbox import (
    Home,
    Image,
    ImageInUseError,
    ImageNotFoundError,
    InvalidConfigError,
    InvalidImageError,
    RegistryAuth,
)
from trio_sandbox.image.cache.keys import rootfs_key
from trio_sandbox.image.squashfs import squashfs_path
from trio_sandbox.locks import lock_file, try_lock
from trio_sandbox.process.spawn import fork_server

pytestmark = pytest.mark.anyio

NAME = "registry.test/demo:1"
LAYER = layer_tar([Item("a", bytes(100_000))])


@pytest.fixture
def own(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "image.tar"
    path.write_bytes(archive_bytes(docker_files(make_image([LAYER]), [NAME])))
    return path


async def test_from_archive_to_archive(own: Home, archive: Path, tmp_path: Path) -> None:
    assert await Image.list(home=own) == []
    (loaded,) = await Image.load(archive, home=own)
    assert loaded.reference == NAME
    assert await Image.list(home=own) == [await Image.get(NAME, home=own)] == [loaded]
    detail = await Image.inspect(NAME, home=own)
    assert detail.info == loaded and len(detail.layers) == loaded.layer_count == 1
    usage = await Image.usage(home=own)
    assert (usage.image_count, usage.size_bytes, usage.disk_bytes) == (1, loaded.size_bytes, loaded.disk_bytes)
    target = tmp_path / "saved.tar"
    await Image.save(NAME, output_path=target, home=own)
    assert (await Image.load(target, tag="mine", home=own))[0].manifest_digest == loaded.manifest_digest
    assert (await Image.remove("mine", home=own)).images_removed == ("docker.io/library/mine:latest",)
    assert (await Image.prune(home=own)).bytes_reclaimed == 0
    assert (await Image.prune(unused=True, home=own)).images_removed == (NAME,)
    assert await Image.list(home=own) == []


async def test_an_image_in_use(own: Home, archive: Path) -> None:
    await Image.load(archive, home=own)
    detail = await Image.inspect(NAME, home=own)
    with lock_file(own) as descriptor:
        assert try_lock(descriptor, rootfs_key(detail.chain_id), shared=True)
        with pytest.raises(ImageInUseError) as caught:
            await Image.remove(NAME, home=own)
    assert caught.value.reference == NAME
    await Image.remove(NAME, home=own)


async def test_errors_come_whole_from_the_other_process(own: Home, tmp_path: Path) -> None:
    missing = tmp_path / "missing.tar"
    with pytest.raises(ImageNotFoundError) as caught:
        await Image.load(missing, home=own)
    assert caught.value.reference == str(missing)
    (tmp_path / "text.tar").write_bytes(b"text" * 1000)
    with pytest.raises(InvalidImageError):
        await Image.load(tmp_path / "text.tar", home=own)
    with pytest.raises(InvalidConfigError, match="output_path"):
        await Image.save(NAME, output_path=missing / "x", home=own)
    for refused in (Image.get, Image.inspect, Image.remove):
        with pytest.raises(ImageNotFoundError):
            await refused(NAME, home=own)
        with pytest.raises(InvalidConfigError):
            await refused("No/Such Name", home=own)
    with pytest.raises(InvalidConfigError, match="policy"):
        await Image.pull(NAME, policy="sometimes", home=own)
    with pytest.raises(InvalidConfigError, match="registry_auth: password"):
        await Image.pull(NAME, registry_auth=RegistryAuth("me", ""), home=own)


async def test_what_is_called_off_leaves_no_process_and_no_name(own: Home, archive: Path) -> None:
    """It waits for somebody who builds the same root file system, and is called off."""
    chain_id = sha256(LAYER)
    with lock_file(own) as descriptor:
        assert try_lock(descriptor, squashfs_path(chain_id, own).name)
        async with anyio.create_task_group() as group:
            group.start_soon(partial(Image.load, archive, home=own))
            while not (own.blobs / chain_id.removeprefix("sha256:")).exists():
                await anyio.sleep(0.01)
            processes = children()
            assert processes
            group.cancel_scope.cancel()
    with anyio.fail_after(5):  # its pipe is closed: the kernel is about to reap it
        while processes & children():
            await anyio.sleep(0.01)
    assert await Image.list(home=own) == []
    assert (await Image.prune(home=own)).blobs_removed == 3


def children() -> set[str]:
    """The processes that the fork server has forked."""
    server = fork_server()._process.pid
    return set(Path(f"/proc/{server}/task/{server}/children").read_text().split())
