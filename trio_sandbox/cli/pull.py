"""`trio-sandbox pull`, `load` and `save`: images into the cache, and out of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trio_sandbox.cli.options import json_option

if TYPE_CHECKING:
    from trio_sandbox.registry_auth import RegistryAuth

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Do not tell how far it is.")


@click.command()
@click.argument("image")
@click.option("--if-missing", is_flag=True, help="Ask no registry when it is here.")
@click.option("-u", "--username", default=None, help="For the registry, with --password-stdin.")
@click.option("--password-stdin", is_flag=True, help="Read the password, or token, from standard input.")
@quiet_option
@json_option
def pull(image: str, if_missing: bool, username: str | None, password_stdin: bool, quiet: bool, as_json: bool) -> int:
    """Bring IMAGE from its registry, ready for sandboxes, and print its reference and the digest of its manifest.

    Layers that are here are not brought again, and a download that was interrupted goes on. Credentials are the ones
    given, else those of Docker's configuration file and its helpers.
    """
    if password_stdin != (username is not None):
        raise click.UsageError("--username and --password-stdin belong together")
    from trio_sandbox.cli.running import run_async
    from trio_sandbox.registry_auth import RegistryAuth

    auth = RegistryAuth(username, sys.stdin.readline().rstrip("\n")) if username is not None else None
    return run_async(_pull, image, if_missing, auth, quiet, as_json)


async def _pull(image: str, if_missing: bool, auth: RegistryAuth | None, quiet: bool, as_json: bool) -> None:
    from trio_sandbox.cli.pull_progress import shown_progress
    from trio_sandbox.config import PullPolicy
    from trio_sandbox.errors import InvalidConfigError
    from trio_sandbox.home import Home
    from trio_sandbox.image.cache import work
    from trio_sandbox.registry_auth import auth_problem

    if auth is not None and (problem := auth_problem(auth)) is not None:
        raise InvalidConfigError([f"credentials: {problem}"])
    policy = PullPolicy.IF_MISSING if if_missing else PullPolicy.ALWAYS
    with shown_progress(is_shown=not quiet and sys.stderr.isatty()) as show:
        references = await work.pull(image, Home.default(), policy=policy, auth=auth, on_pull=show)
    _tell(references, as_json)


@click.command()
@click.argument("archive", type=click.Path())
@click.option("-t", "--tag", default=None, metavar="IMAGE", help="Name of the one image in it, instead of its own.")
@quiet_option
@json_option
def load(archive: str, tag: str | None, quiet: bool, as_json: bool) -> int:
    """Take the images of an OCI or Docker archive into the cache, and print their references and digests."""
    from trio_sandbox.cli.running import run_async

    return run_async(_load, archive, tag, quiet, as_json)


async def _load(archive: str, tag: str | None, quiet: bool, as_json: bool) -> None:
    from trio_sandbox.cli.pull_progress import shown_progress
    from trio_sandbox.home import Home
    from trio_sandbox.image.cache import work

    with shown_progress(is_shown=not quiet and sys.stderr.isatty()) as show:
        references = await work.load(Path(archive), Home.default(), name=tag, on_pull=show)
    _tell(references, as_json)


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-o", "--output", required=True, type=click.Path(), help="The archive; one that is there is replaced.")
def save(images: Sequence[str], output: str) -> int:
    """Write images that are here to an OCI archive: the same bytes for the same images."""
    from trio_sandbox.cli.running import run_async

    return run_async(_save, images, output)


async def _save(images: Sequence[str], output: str) -> None:
    from trio_sandbox.home import Home
    from trio_sandbox.image.cache import work

    await work.save(images, Home.default(), Path(os.path.abspath(output)))


def _tell(references: Sequence[str], as_json: bool) -> None:
    from trio_sandbox.cli.output import show_json
    from trio_sandbox.home import Home
    from trio_sandbox.image.cache.catalog import Catalog

    catalog = Catalog(Home.default())
    found = [catalog.info(catalog.find(reference, reference)) for reference in references]
    if as_json:
        show_json([image.to_plain() for image in found])
    else:
        for image in found:
            click.echo(f"{image.reference} {image.manifest_digest}")
