"""What programs get where their caller says nothing: the sandbox's options, else the image's, else ours. No I/O.

The order, from what counts most: the arguments of the call; the options of the sandbox; the configuration of the image;
an own default. Environments are joined by that order, variable by variable, but for two folders of PATH: that of the
scripts comes before, and that of the agent's own programs behind what anybody but the caller says.
"""

from __future__ import annotations

import re
import signal

import attrs

from trio_sandbox.config import AGENT_PATH, DEFAULT_PATH, SandboxConfig
from trio_sandbox.image.oci import ImageConfig
from trio_sandbox.scripts import FOLDER

REALTIME_MIN, REALTIME_MAX = 34, 64
"""SIGRTMIN as container tools have it, whatever the C library of a program calls it; and SIGRTMAX."""
_SIGNAL = re.compile(r"(?:SIG)?(?:(RTMIN|RTMAX)([+-]\d{1,2})?|([A-Z0-9]+))")


@attrs.frozen
class ProgramDefaults:
    """entrypoint, cmd: the words of `exec_default`. stop_signal: what programs get when the sandbox stops."""

    env: dict[str, str]
    workdir: str
    user: str
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    stop_signal: int

    @classmethod
    def of(cls, config: SandboxConfig, image: ImageConfig) -> ProgramDefaults:
        """The defaults of a sandbox. An entry point of its own drops the image's command too, which was made for the
        image's: `docker run --entrypoint` does the same.
        """
        own = config.entrypoint
        env = {"PATH": DEFAULT_PATH, **dict(word.split("=", 1) for word in image.env if "=" in word), **config.env}
        scripts = f"{FOLDER}:" if config.scripts else ""
        return cls(
            env={**env, "PATH": f"{scripts}{env['PATH']}:{AGENT_PATH}"},
            workdir=config.workdir or _absolute(image.working_dir),
            user=config.user or image.user,
            entrypoint=image.entrypoint if own is None else tuple(own),
            cmd=image.cmd if own is None else (),
            stop_signal=signal_number(image.stop_signal),
        )


def _absolute(workdir: str) -> str:
    """An image's folder; a relative one is meant from the root."""
    return workdir if workdir.startswith("/") else f"/{workdir}"


def signal_number(text: str) -> int:
    """The signal that an image's STOPSIGNAL names: `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`. SIGTERM for anything else."""
    if text.isascii() and text.isdigit() and len(text) <= 2:
        number = int(text)
    elif (found := _SIGNAL.fullmatch(text.upper())) is None:
        number = 0
    elif found[1] is not None:
        number = (REALTIME_MIN if found[1] == "RTMIN" else REALTIME_MAX) + int(found[2] or 0)
        number = number if REALTIME_MIN <= number <= REALTIME_MAX else 0
    else:
        known = getattr(signal, f"SIG{found[3]}", None)
        number = int(known) if isinstance(known, signal.Signals) else 0
    return number if 1 <= number <= REALTIME_MAX else int(signal.SIGTERM)
