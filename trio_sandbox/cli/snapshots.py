"""`snapshot …`: sandboxes, kept to make new ones of. What only looks needs no event loop, so it is quick."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from trio_sandbox.cli.options import json_already_option, json_option, label_option, labels, sandbox_name_completion
from trio_sandbox.cli.output import age, show_json, show_table, size

if TYPE_CHECKING:
    from trio_sandbox.errors import SandboxError
    from trio_sandbox.snapshot.store import Artifact

HEADINGS = ("NAME", "KIND", "FROM", "IMAGE", "DIGEST", "CREATED", "ON DISK")
DIGEST_SHOWN = len("sha256:") + 12


def _complete_snapshot(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from trio_sandbox.home import Home
    from trio_sandbox.snapshot.store import all_snapshots

    names = [artifact.name for artifact in all_snapshots(Home.default())]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


snapshot_argument = click.argument("snapshot", metavar="SNAPSHOT", shell_complete=_complete_snapshot)
snapshot_arguments = click.argument(
    "snapshots", nargs=-1, required=True, metavar="SNAPSHOT...", shell_complete=_complete_snapshot
)


@click.group()
def snapshot() -> None:
    """Keep the disks of sandboxes, and their memory, and make new sandboxes of them.

    SNAPSHOT is a name, a digest (`sha256:` and 12 digits or more), or the path of a folder, which begins with '/',
    './', '../' or '~'. `create --snapshot` and `run --snapshot` make sandboxes.
    """


@snapshot.command("create")
@click.argument("name")
@click.argument("sandbox", shell_complete=sandbox_name_completion)
@click.option("--memory", is_flag=True, help="Of a sandbox that runs, with its memory: programs go on where they were.")
@click.option("--dest-dir", default=None, metavar="FOLDER", help="Make it here, and not in the data folder.")
@label_option
@click.option("-f", "--force", is_flag=True, help="In the place of a snapshot that has the name.")
@json_option
def create_(
    name: str, sandbox: str, memory: bool, dest_dir: str | None, label: Sequence[str], force: bool, as_json: bool
) -> int:
    """Keep the disk of SANDBOX, which must not run, as snapshot NAME, and print its name.

    With --memory it must run, and goes on: a sandbox that is made of the snapshot has its programs too.
    """
    from trio_sandbox.cli.running import run_async
    from trio_sandbox.client.snapshot import Snapshot
    from trio_sandbox.snapshot.store import Artifact

    async def work() -> None:
        made = await Snapshot.create(name, sandbox, memory=memory, dest_dir=dest_dir, labels=labels(label), force=force)
        _say(Artifact.at(made.path), as_json)

    return run_async(work)


@snapshot.command("ls")
@label_option
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Names alone, one a line.")
def ls(label: Sequence[str], as_json: bool, quiet: bool) -> None:
    """List the snapshots that are here, oldest first. --label shows those that have all the labels given."""
    from trio_sandbox.home import Home
    from trio_sandbox.snapshot.store import all_snapshots

    found = all_snapshots(Home.default(), labels(label))
    if as_json:
        show_json([_plain(artifact) for artifact in found])
    elif quiet:
        for artifact in found:
            click.echo(artifact.name)
    else:
        show_table(HEADINGS, [_cells(artifact) for artifact in found])


@snapshot.command("inspect")
@json_already_option
@snapshot_arguments
def inspect(snapshots: Sequence[str]) -> None:
    """Show all that is known of snapshots: a JSON array. Sizes in bytes, times in milliseconds since the epoch."""
    from trio_sandbox.home import Home
    from trio_sandbox.snapshot.store import find

    show_json([_plain(find(Home.default(), name)) for name in snapshots])


@snapshot.command("rm")
@snapshot_arguments
def rm(snapshots: Sequence[str]) -> None:
    """Remove snapshots, and print their names. Sandboxes that were made of them do not need them."""
    from trio_sandbox.home import Home
    from trio_sandbox.snapshot.store import remove

    _each(snapshots, lambda name: remove(Home.default(), name).name)


@snapshot.command("verify")
@snapshot_arguments
def verify(snapshots: Sequence[str]) -> None:
    """Read all of snapshots, and print the names of those that are what they were."""
    from trio_sandbox.home import Home
    from trio_sandbox.snapshot.store import find

    def verified(name: str) -> str:
        found = find(Home.default(), name)
        found.verify()
        return found.name

    _each(snapshots, verified)


@snapshot.command("save")
@snapshot_argument
@click.option("-o", "--output", required=True, type=click.Path(), help="The archive; one that is there is replaced.")
@click.option("--with-image", is_flag=True, help="With the image beneath, for machines that cannot pull it.")
def save(snapshot: str, output: str, with_image: bool) -> int:
    """Write SNAPSHOT to an archive: a tar stream, compressed by gzip, in which holes take no room."""
    from trio_sandbox.cli.running import run_async
    from trio_sandbox.client.snapshot import Snapshot

    async def work() -> None:
        await Snapshot.save(snapshot, output, with_image=with_image)

    return run_async(work)


@snapshot.command("load")
@click.argument("archive", type=click.Path())
@click.option("-n", "--name", default=None, help="Its name here, instead of its own.")
@json_option
def load(archive: str, name: str | None, as_json: bool) -> int:
    """Take a snapshot out of an archive, with its image if that came along and is not here, and print its name.

    All of it is checked before anything is made of it.
    """
    from trio_sandbox.cli.running import run_async
    from trio_sandbox.client.snapshot import Snapshot
    from trio_sandbox.snapshot.store import Artifact

    async def work() -> None:
        _say(Artifact.at((await Snapshot.load(archive, name=name)).path), as_json)

    return run_async(work)


def _say(artifact: Artifact, as_json: bool) -> None:
    if as_json:
        show_json(_plain(artifact))
    else:
        click.echo(artifact.name)


def _plain(artifact: Artifact) -> dict[str, Any]:
    description = artifact.description
    return {
        "name": artifact.name,
        "path": os.fspath(artifact.path),
        "digest": description.digest,
        "kind": description.kind,
        "format": description.format,
        "size_bytes": artifact.disk_bytes,
        "virtual_bytes": description.virtual_bytes,
        "image": description.image.reference,
        "image_digest": description.image.manifest_digest,
        "chain_id": description.image.chain_id,
        "source_sandbox": description.source,
        "created_at": description.created_ns / 1e6,
        "labels": dict(description.labels),
    }


def _cells(artifact: Artifact) -> tuple[str, ...]:
    description = artifact.description
    created = f"{age(description.created_ns)} ago"
    digest = description.digest[:DIGEST_SHOWN]
    image, taken = description.image.reference, size(artifact.disk_bytes)
    return artifact.name, description.kind, description.source, image, digest, created, taken


def _each(names: Sequence[str], action: Callable[[str], str]) -> None:
    """Do something to several snapshots, print what it returns, and raise what failed when all have been tried."""
    from trio_sandbox.errors import SandboxError

    failures: list[SandboxError] = []
    for name in dict.fromkeys(names):
        try:
            click.echo(action(name))
        except SandboxError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup("several snapshots", failures)
