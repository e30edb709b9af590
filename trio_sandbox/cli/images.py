"""`images`, `rmi` and `image …`: what the cache holds. No event loop, so that they are quick."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from trio_sandbox.cli.options import json_already_option, json_option
from trio_sandbox.cli.output import age, as_plain, on_terminal, show_json, show_table, size, tell

if TYPE_CHECKING:
    from trio_sandbox.errors import SandboxError
    from trio_sandbox.image_info import ImageInfo, ImagePruneReport

HEADINGS = ("REFERENCE", "DIGEST", "CREATED", "USED", "SIZE", "ON DISK")
DIGEST_SHOWN = len("sha256:") + 12


def _complete_image(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from trio_sandbox.home import Home
    from trio_sandbox.image.cache.records import Records

    records = Records(Home.default()).all()
    return [CompletionItem(record.reference) for record in records if record.reference.startswith(incomplete)]


image_arguments = click.argument("names", nargs=-1, required=True, metavar="IMAGE...", shell_complete=_complete_image)


@click.command()
@json_option
@click.option("-q", "--quiet", is_flag=True, help="References alone, one a line.")
def images(as_json: bool, quiet: bool) -> None:
    """List the images of registries and archives that are here.

    SIZE is what a registry sends, ON DISK what is here of it with the root file system made of it. Images share layers;
    the sum below the table counts each once.
    """
    from trio_sandbox.home import Home
    from trio_sandbox.image.cache.catalog import Catalog
    from trio_sandbox.image.cache.collect import usage

    catalog = Catalog(Home.default())
    found = [catalog.info(image) for image in catalog.all()]
    if as_json:
        show_json([image.to_plain() for image in found])
    elif quiet:
        for image in found:
            click.echo(image.reference)
    else:
        show_table(HEADINGS, [_cells(image) for image in found])
        if on_terminal():
            all_ = usage(Home.default())
            tell(f"together {size(all_.size_bytes)}, {size(all_.disk_bytes)} on disk")
            if all_.reclaimable_bytes:
                tell(f"{size(all_.reclaimable_bytes)} that nothing needs; `trio-sandbox image prune` removes it")


def _cells(image: ImageInfo) -> tuple[str, ...]:
    created = "" if image.created_at is None else f"{datetime.fromtimestamp(image.created_at / 1e3):%Y-%m-%d}"
    used = f"{age(int(image.last_used_at * 1e6))} ago"
    digest = image.manifest_digest[:DIGEST_SHOWN]
    return image.reference, digest, created, used, size(image.size_bytes), size(image.disk_bytes)


@click.command()
@click.option("-f", "--force", is_flag=True, help="Also images that sandboxes stand on; these can still be started.")
@image_arguments
def rmi(force: bool, names: Sequence[str]) -> None:
    """Remove images, but for what others share with them. Prints the references that are gone."""
    from trio_sandbox.errors import SandboxError
    from trio_sandbox.home import Home
    from trio_sandbox.image.cache.collect import remove_image
    from trio_sandbox.image.cache.names import canonical_name

    failures: list[SandboxError] = []
    for name in dict.fromkeys(names):
        try:
            report = remove_image(Home.default(), canonical_name(name), name, force=force)
        except SandboxError as error:
            failures.append(error)
        else:
            _say_removed(report)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup("several images", failures)


def _say_removed(report: ImagePruneReport) -> None:
    for reference in report.images_removed:
        click.echo(reference)


@click.command("inspect")
@json_already_option
@image_arguments
def inspect(names: Sequence[str]) -> None:
    """Show all that is known of images: a JSON array with sizes, configuration and layers.

    Sizes are in bytes and times in milliseconds since the epoch.
    """
    from trio_sandbox.home import Home
    from trio_sandbox.image.cache.catalog import Catalog
    from trio_sandbox.image.cache.names import canonical_name

    catalog = Catalog(Home.default())
    show_json([_whole(as_plain(catalog.detail(catalog.find(canonical_name(name), name)))) for name in names])


def _whole(detail: dict[str, Any]) -> dict[str, Any]:
    return {**detail.pop("info"), **detail}


@click.command()
@click.option("-a", "--all", "unused", is_flag=True, help="Also all images that no sandbox stands on.")
@json_option
def prune(unused: bool, as_json: bool) -> None:
    """Remove what no image and no sandbox needs: what a moved tag has left, interrupted downloads.

    Prints the references that are gone, with --all, and on standard error what was freed.
    """
    from trio_sandbox.home import Home
    from trio_sandbox.image.cache import collect

    report = collect.prune(Home.default(), unused=unused)
    if as_json:
        show_json(as_plain(report))
        return
    _say_removed(report)
    tell(f"freed {size(report.bytes_reclaimed)}")


@click.group()
def image() -> None:
    """Look at images, and remove what is not needed."""


image.add_command(images, "ls")
image.add_command(inspect)
image.add_command(prune)
image.add_command(rmi, "rm")
