"""Options and arguments that several commands have, and what their words mean."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])


def sandbox_name_completion(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of sandboxes that begin like this."""
    from trio_sandbox.cli.failures import known_names

    return [CompletionItem(name) for name in known_names() if name.startswith(incomplete)]


def name_argument(function: F) -> F:
    """One sandbox."""
    return click.argument("name", shell_complete=sandbox_name_completion)(function)


def names_argument(function: F) -> F:
    """One sandbox or more."""
    return click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=sandbox_name_completion)(
        function
    )


def json_option(function: F) -> F:
    """`--json`, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def json_already_option(function: F) -> F:
    """`--json` of what prints nothing else: whoever types it everywhere is not refused."""
    text = "Accepted and not needed: it is always JSON."
    return click.option("--json", is_flag=True, expose_value=False, help=text)(function)


def program_options(function: F) -> F:
    """What a program in a sandbox gets: `env`, `workdir`, `user`."""
    for option in (
        click.option("-u", "--user", default=None, help="User: name, uid, user:group or uid:gid."),
        click.option("-w", "--workdir", default=None, help="Working directory."),
        click.option(
            "-e", "--env", multiple=True, metavar="NAME=VALUE", help="Environment variable; NAME alone passes it on."
        ),
    ):
        function = option(function)
    return function


def image_options(function: F) -> F:
    """What is done with an image: `entrypoint`, `script`."""
    for option in (
        click.option(
            "--script",
            multiple=True,
            metavar="NAME=FILE",
            help="Put the text of FILE on the sandbox's PATH as program NAME; may be repeated.",
        ),
        click.option(
            "--entrypoint",
            default=None,
            metavar="PROGRAM",
            help='What runs instead of the image\'s entry point and command; "" for nothing.',
        ),
    ):
        function = option(function)
    return function


def timeout_option(function: F) -> F:
    """`--timeout` of a command."""
    return click.option(
        "--timeout", type=float, default=None, help="Seconds after which the command is killed (exit code 124)."
    )(function)


def detach_keys_option(function: F) -> F:
    """`--detach-keys`."""
    return click.option(
        "--detach-keys", default=None, metavar="KEYS", help='What leaves a terminal: "ctrl-]", or "ctrl-p,ctrl-q".'
    )(function)


def machine_options(function: F) -> F:
    """The size of a machine: `cpus`, `memory`; `cold`."""
    for option in (
        click.option("--cold", is_flag=True, help="Boot, even where a warm template could be cloned."),
        click.option("-m", "--memory", default=512, show_default=True, help="Guest memory in MiB."),
        click.option("-c", "--cpus", default=1, show_default=True, help="Virtual CPUs."),
    ):
        function = option(function)
    return function


def pull_option(function: F) -> F:
    """`--pull`, as `pull_policy`."""
    return click.option(
        "--pull",
        "pull_policy",
        type=click.Choice(["always", "if-missing", "never"]),
        default="if-missing",
        show_default=True,
        metavar="WHEN",
        help="Ask the image's registry: always, if-missing or never.",
    )(function)


def snapshot_option(function: F) -> F:
    """`--snapshot`."""
    return click.option(
        "--snapshot",
        default=None,
        help="Begin with this snapshot (name, digest or path) in the place of an image.",
    )(function)


def label_option(function: F) -> F:
    """`--label`, for `labels`."""
    return click.option(
        "-l",
        "--label",
        multiple=True,
        metavar="KEY=VALUE",
        help="Label; may be repeated; KEY alone has an empty value.",
    )(function)


def environment(words: Sequence[str]) -> dict[str, str]:
    """`-e NAME=VALUE`, or `-e NAME` to pass the variable of this process on."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            found[key] = value
        elif key in os.environ:
            found[key] = os.environ[key]
    return found


def entrypoint_words(word: str | None) -> list[str] | None:
    """`--entrypoint PROGRAM`."""
    return None if word is None else [word] if word else []


def scripts(words: Sequence[str]) -> dict[str, str]:
    """`--script NAME=FILE`. Raises UsageError for a file that cannot be read as text."""
    found = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals:
            raise click.UsageError(f"--script {word}: must be NAME=FILE")
        try:
            found[name] = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"--script {word}: {error}") from error
    return found


def labels(words: Sequence[str]) -> dict[str, str]:
    """`--label KEY=VALUE`, or `--label KEY` for an empty value."""
    return {key: value for key, _, value in (word.partition("=") for word in words)}
