"""Scripts: programs that a configuration brings along, in /.msb/scripts and on PATH. No I/O here.

They are in the guest's memory, so they are put there at every start. A body that does not begin with `#!` is run by the
sandbox's shell, as if its first line was `#!SHELL`; everything else is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trio_sandbox.patch import NAME_LIMIT

FOLDER = "/.msb/scripts"
SCRIPTS_LIMIT = 512
"""Scripts of one sandbox. The folder in the guest has room for these and not for many more."""
SCRIPTS_SIZE_LIMIT = 4 << 20
"""Bytes of all of them together."""


def script_file(body: str, shell: str) -> bytes:
    """What is in the file of a script."""
    return (body if body.startswith("#!") else f"#!{shell}\n{body}").encode()


def scripts_problems(value: object) -> list[str]:
    """What is wrong with the scripts of a configuration, a sentence each."""
    if not isinstance(value, Mapping):
        return [f"scripts: must be a mapping, not {type(value).__name__}"]
    if len(value) > SCRIPTS_LIMIT:
        return [f"scripts: {len(value)} scripts, at most {SCRIPTS_LIMIT} are allowed"]
    found = [f"scripts: {name!r}: {problem}" for name, body in value.items() for problem in _problems(name, body)]
    if not found and (size := sum(len(body.encode()) for body in value.values())) > SCRIPTS_SIZE_LIMIT:
        found.append(f"scripts: {size} bytes, at most {SCRIPTS_SIZE_LIMIT} are allowed")
    return found


def _problems(name: object, body: object) -> Iterator[str]:
    if not isinstance(name, str):
        yield f"a name must be str, not {type(name).__name__}"
    elif name in ("", ".", "..") or "/" in name or "\0" in name or not 0 < _size(name) <= NAME_LIMIT:
        yield f"a name must be one file name of 1 to {NAME_LIMIT} bytes"
    if not isinstance(body, str):
        yield f"a body must be str, not {type(body).__name__}"
    elif _size(body) < 0:
        yield "the body cannot be written as UTF-8"


def _size(text: str) -> int:
    """Bytes as UTF-8; -1 when that is impossible."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return -1
