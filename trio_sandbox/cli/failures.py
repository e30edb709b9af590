"""Failures as sentences: the one place that turns exceptions and exception groups into words, with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trio_sandbox.errors import (
    HostNotReadyError,
    SandboxAlreadyExistsError,
    SandboxCrashedError,
    SandboxError,
    SandboxNotFoundError,
    SandboxNotRunningError,
    SandboxPausedError,
    SandboxStillRunningError,
)


class CommandError(SandboxError):
    """What a command was asked for cannot be done, for a reason that only the command line knows."""


@contextmanager
def telling_wrong_arguments() -> Iterator[None]:
    """For a call of the API whose arguments are a person's words: the ValueError that names a wrong one is no bug.

    Raises CommandError instead.
    """
    try:
        yield
    except ValueError as error:
        if isinstance(error, SandboxError):
            raise
        raise CommandError(str(error)) from error


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group of groups, in order; a lone one alone."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def sentences(error: BaseException) -> list[str]:
    """What to tell a person: our own errors speak for themselves, a bug says how to see more of it."""
    return [sentence(leaf) for leaf in leaves(error)]


def sentence(error: BaseException) -> str:
    """One failure."""
    if isinstance(error, SandboxError):
        remedy = _remedy(error)
        return f"{error}; {remedy}" if remedy else str(error)
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else ""
        return f"{named}{error.strerror}"
    return f"{type(error).__name__}: {error} (this is a bug; `trio-sandbox --debug …` shows where)"


def _remedy(error: SandboxError) -> str:
    """What to do about it on the command line, where the error itself does not say so."""
    match error:
        case SandboxNotFoundError(name=name):
            near = nearest(name, known_names())
            return f"did you mean {near!r}?" if near else "`trio-sandbox ls -a` lists all"
        case SandboxAlreadyExistsError() | HostNotReadyError() | SandboxPausedError():
            return ""
        case SandboxStillRunningError(name=name):
            return f"`trio-sandbox rm -f {name}` does both"
        case SandboxNotRunningError(name=name) if type(error) is SandboxNotRunningError:
            return f"`trio-sandbox start {name}` starts it"
        case SandboxCrashedError(name=name):
            return f"`trio-sandbox inspect {name}` tells more"
        case _:
            return ""


def nearest(word: str, known: list[str]) -> str | None:
    """The known word that somebody may have meant."""
    import difflib

    found = difflib.get_close_matches(word, known, n=1)
    return found[0] if found else None


def known_names() -> list[str]:
    """The names of all sandboxes; none when they cannot be told."""
    from trio_sandbox.home import Home
    from trio_sandbox.state.places import store_of

    try:
        return [row.name for row in store_of(Home.default()).all()]
    except SandboxError:
        return []
