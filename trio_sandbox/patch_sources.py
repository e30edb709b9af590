"""The files of the host that patches copy: whether they are there and can be read. Blocking, for worker threads."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from trio_sandbox.errors import InvalidConfigError
from trio_sandbox.patch import PatchConfig, PatchKind


def require_sources(patches: Sequence[PatchConfig]) -> None:
    """Raise InvalidConfigError with every source that is missing, of the wrong kind or not readable."""
    problems = [
        f"patches[{index}]: {patch.kind}: src: {patch.src}: {problem}"
        for index, patch in enumerate(patches)
        if patch.src is not None and (problem := _source_problem(patch.src, patch.kind)) is not None
    ]
    if problems:
        raise InvalidConfigError(problems)


def _source_problem(path: str, kind: PatchKind) -> str | None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return error.strerror
    if kind is PatchKind.COPY_DIR:
        is_right, rights, wanted = stat.S_ISDIR(mode), os.R_OK | os.X_OK, "not a folder"
    else:
        is_right, rights, wanted = stat.S_ISREG(mode), os.R_OK, "not a regular file"
    if not is_right:
        return wanted
    return None if os.access(path, rights) else os.strerror(errno.EACCES)
