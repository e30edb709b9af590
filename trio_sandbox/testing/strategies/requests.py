"""What `exec` and `exec_stream` are asked for: right calls, whether or not the guest can do what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from hypothesis import strategies as st

from trio_sandbox.client.outcome import ExecOutput
from trio_sandbox.client.rlimits import Rlimit
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.testing.model import PROGRAMS, YES
from trio_sandbox.testing.readable import Readable

_WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
_NAMES = st.text(st.characters(exclude_characters="=\0", exclude_categories=["Cs"]), min_size=1, max_size=8)


@attrs.frozen(repr=False)
class ExecRequest(Readable):
    """One call. options: keywords of `exec`, which `exec_stream` takes too."""

    cmd: str
    args: tuple[str, ...] = ()
    options: Mapping[str, Any] = attrs.Factory(dict)

    async def exec(self, sandbox: Sandbox) -> ExecOutput:
        """Make the call. Raises as `Sandbox.exec`."""
        return await sandbox.exec(self.cmd, self.args, **self.options)


def environments() -> st.SearchStrategy[dict[str, str]]:
    """A few variables of any text that an environment can hold."""
    return st.dictionaries(_NAMES, _WORDS, max_size=3)


def exec_requests(
    commands: st.SearchStrategy[str] | None = None, *, timeouts: st.SearchStrategy[float] | None = None
) -> st.SearchStrategy[ExecRequest]:
    """A call with any of the options of `exec`.

    commands: what is run (those that any guest has, and some that none has). timeouts: in seconds (0 to 100): a call
    always has one, since many of these programs never end.
    """
    # `yes` would write for as long as somebody reads, and let no virtual time pass in which its timeout could come.
    known = st.sampled_from(
        [program.cmd for program in PROGRAMS if program is not YES] + ["env", "pwd", "/bin/cat", "/tmp", "é"]
    )
    optional: dict[str, st.SearchStrategy[Any]] = {
        "cwd": st.sampled_from(("/", "/tmp", "/tmp/new folder", "/no/such/folder", "/etc/passwd")),
        "user": st.sampled_from(("root", "nobody", "0:0", "1000", "nobody:daemon", "no-such-user")),
        "env": environments(),
        "stdin": st.binary(max_size=200) | _WORDS | st.just(bytes(300_000)),
        "tty": st.booleans(),
        "rlimits": st.sampled_from(([], [Rlimit.nofile(16)], [Rlimit.nofile(1 << 30)])),
    }
    options = st.fixed_dictionaries({"timeout": st.floats(0, 100) if timeouts is None else timeouts}, optional=optional)
    args = st.lists(_WORDS, max_size=3).map(tuple)
    return st.builds(ExecRequest, known if commands is None else commands, args, options)
