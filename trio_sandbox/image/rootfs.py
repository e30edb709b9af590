"""From an image to the read-only root file system that sandboxes boot from.

One squashfs per chain of layers, shared by every sandbox and every image with the same layers, built once and cached in
Home.rootfs. It is written to a file without a name and published whole, so a killed build leaves nothing.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import attrs
import trio

from trio_sandbox.errors import HostNotReadyError, StorageError
from trio_sandbox.exclusive import exclusively
from trio_sandbox.files import anonymous_file, descriptor_path, publish, storage_errors
from trio_sandbox.home import Home
from trio_sandbox.image.archive import ArchiveStore
from trio_sandbox.image.blobs import ImageStore
from trio_sandbox.image.cache.keys import rootfs_key
from trio_sandbox.image.cache.leases import Lease
from trio_sandbox.image.faults import blame
from trio_sandbox.image.layout import LayoutStore
from trio_sandbox.image.limits import DEFAULT_LIMITS, Limits
from trio_sandbox.image.merge import Contradicted, merge_layers
from trio_sandbox.image.observed import observed
from trio_sandbox.image.oci import Image, ImageConfig
from trio_sandbox.image.progress import Meter, Progress
from trio_sandbox.image.reference import ImageLocation, locate_image
from trio_sandbox.image.remembered import recall, record_of, remember
from trio_sandbox.image.sink import PipeSink, Sink, widen
from trio_sandbox.image.squashfs import is_sound, squashfs_path
from trio_sandbox.pull_event import OnPull, PullEvent, ignore
from trio_sandbox.tools import ToolError, run_tool

__all__ = ["ImageConfig", "RootFilesystem", "prepare_rootfs"]

PACKER = "tar2sqfs"
PACKER_OPTIONS = ("--quiet", "--force", "--no-skip", "--compressor", "lz4")
"""lz4 packs a base image of 170 MB in 0.4 s, zstd in 0.6 s, into 78 MB and 56 MB. A guest under software emulation pays
more for zstd at every read."""
PACKER_JOBS = ("--num-jobs", "1")
"""One compresses faster than a merge feeds it; more would only take the cores that unpack and hash."""

PROBE_BYTES = 1 << 20
"""More than the packer writes at once: if it found no room for that, there is none for this."""


@attrs.frozen
class RootFilesystem:
    """A root file system that is ready to boot, and how the image wants its programs run."""

    reference: str
    """The image as the user named it."""
    path: Path
    """The squashfs. It is never changed; a rebuild puts another file in its place."""
    chain_id: str
    manifest_digest: str
    """For a Docker archive, the digest of the configuration."""
    config: ImageConfig
    is_folder: bool = False
    """Whether it was a folder of the host, which is likely to be another one soon."""

    @classmethod
    def of(cls, reference: str, image: Image, home: Home) -> RootFilesystem:
        """That of an image, where it is when it has been built."""
        path = squashfs_path(image.chain_id, home)
        return cls(reference, path, image.chain_id, image.manifest_digest, image.config)


async def prepare_rootfs(
    image: str | os.PathLike[str],
    home: Home,
    *,
    progress: Progress | None = None,
    on_pull: OnPull = ignore,
    limits: Limits = DEFAULT_LIMITS,
    lease: Lease | None = None,
) -> RootFilesystem:
    """The root file system of an image on this machine's disk, from the cache or built now.

    on_pull: told each step, in this task. lease: keeps it from being removed, as long as the lease lasts.

    Several callers, in one process or in many, build it once. Cancellation, or the death of this process, leaves
    nothing behind. Raises InvalidConfigError, UnsupportedError, ImageNotFoundError, InvalidImageError, StorageError,
    HostNotReadyError.
    """
    on_pull(PullEvent("resolving", reference=os.fspath(image)))
    location = locate_image(image, home)
    with blame(location.reference):
        with storage_errors(location.path):
            record = record_of(location, home)
        found = recall(record) if record is not None else None
        if found is not None:
            await _rely_on(found, lease)
        if found is None or not is_sound(squashfs_path(found.chain_id, home)):
            found = await _find_and_build(location, home, progress, on_pull, limits, lease)
            if record is not None:
                with suppress(StorageError):  # only the next look-up is slower
                    remember(record, found)
        else:
            on_pull(resolved_event(location.reference, found))
    on_pull(PullEvent("complete", reference=location.reference, layer_count=len(found.layers)))
    return RootFilesystem.of(location.reference, found, home)


def resolved_event(reference: str, image: Image, missing: int = 0) -> PullEvent:
    """What `image` turned out to be. missing: bytes that are to be downloaded."""
    return PullEvent(
        "resolved",
        reference=reference,
        manifest_digest=image.manifest_digest,
        layer_count=len(image.layers),
        total_download_bytes=missing,
    )


async def _rely_on(image: Image, lease: Lease | None) -> None:
    if lease is not None:
        await lease.add([rootfs_key(image.chain_id)])


async def _find_and_build(
    location: ImageLocation,
    home: Home,
    progress: Progress | None,
    on_pull: OnPull,
    limits: Limits,
    lease: Lease | None,
) -> Image:
    store = await _open_store(location, home, Meter(progress), limits)
    with closing(store):
        image = await trio.to_thread.run_sync(store.image)
        on_pull(resolved_event(location.reference, image))
        await _rely_on(image, lease)
        await ensure_built(image, store, home, progress=progress, on_pull=on_pull, limits=limits)
    return image


async def ensure_built(
    image: Image,
    store: ImageStore,
    home: Home,
    *,
    progress: Progress | None = None,
    on_pull: OnPull = ignore,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Have the root file system of `image` in the cache, made of the layers in `store` unless it is there already.

    Of several callers, in one process or in many, one makes it. Raises ImageFault for what is wrong with the layers,
    StorageError, HostNotReadyError. Cancellation leaves nothing.
    """
    path = squashfs_path(image.chain_id, home)
    if is_sound(path):
        return
    async with exclusively(home, path.name):
        if is_sound(path):
            return
        on_pull(PullEvent("stitch_merging_trees", layer_count=len(image.layers)))
        async with observed(image, store, on_pull) as watched:
            await _build(image, watched, path, Meter(progress), limits)
        on_pull(PullEvent("stitch_complete"))


async def _open_store(location: ImageLocation, home: Home, meter: Meter, limits: Limits) -> ImageStore:
    def open_it() -> ImageStore:
        with storage_errors(location.path):
            if location.is_folder:
                return LayoutStore.open(location.path, location.tag)
            return ArchiveStore.open(location.path, location.tag, home, meter, limits)

    return await trio.to_thread.run_sync(open_it)


async def _build(image: Image, store: ImageStore, path: Path, meter: Meter, limits: Limits) -> None:
    """Merge the layers into the packer; once more, when what was guessed of an entry was wrong."""
    merge = partial(merge_layers, image.layers, store.layer, meter=meter, limits=limits)
    try:
        await build_squashfs(merge, path)
    except Contradicted as found:
        await build_squashfs(partial(merge, corrections=found.corrections), path)


async def build_squashfs(write: Callable[[Sink], None], path: Path) -> None:
    """Pack the tar stream that `write` writes, in a worker thread, and publish the squashfs at `path` when it is whole.

    Raises what `write` raises, StorageError, HostNotReadyError. Cancellation leaves nothing.
    """
    with ExitStack() as stack:
        target = anonymous_file(path.parent)
        stack.callback(os.close, target)
        await _pack(write, target, path.parent)

        path.unlink(missing_ok=True)  # a damaged one; publishing over it would need a second name for a moment
        await trio.to_thread.run_sync(publish, target, path)
    if not is_sound(path):
        raise StorageError(str(path.parent), errno.EIO, "the root file system that was just written is damaged")


async def _pack(write: Callable[[Sink], None], target: int, folder: Path) -> None:
    """Run the packer on what `write` writes in a worker thread. Cancellation ends both before it goes on.

    The failure of the side that failed first is raised, not the broken pipe that it caused on the other side.
    """
    source, sink = os.pipe2(os.O_CLOEXEC)
    widen(sink)
    failures: list[Exception] = []

    async def pack() -> None:
        try:
            await _run_packer(source, target, folder)
        except Exception as error:
            failures.append(error)
        finally:
            os.close(source)  # a writer that is still there gets EPIPE instead of waiting for ever

    def produce() -> None:
        pipe = PipeSink(sink)
        write(pipe)
        pipe.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pack)
        try:
            await trio.to_thread.run_sync(produce)
        except BrokenPipeError:
            pass
        except Exception as error:
            failures.insert(0, error)
        finally:
            os.close(sink)
    if failures:
        raise failures[0]


async def _run_packer(source: int, target: int, folder: Path) -> None:
    argv = [PACKER, *PACKER_OPTIONS, *PACKER_JOBS, descriptor_path(target)]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
    try:
        await run_tool(argv, stdin=source, stdout=subprocess.DEVNULL, env=environment, pass_fds=[target])
    except HostNotReadyError as error:
        raise HostNotReadyError(PACKER, "the program is not installed", "install squashfs-tools-ng") from error
    except ToolError as error:
        # The packer says "I/O error" whatever the kernel told it: ask the kernel again.
        with storage_errors(folder):
            os.pwrite(target, b"?" * PROBE_BYTES, os.fstat(target).st_size)
            os.fsync(target)
        raise error
