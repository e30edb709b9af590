"""`supervise`: a sandbox that is made again when it, or what runs in it, has ended. anyio only."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import anyio
import attrs

from trio_sandbox.errors import (
    HostNotReadyError,
    InvalidConfigError,
    SandboxAlreadyExistsError,
    UnsupportedError,
)
from trio_sandbox.home import Home
from trio_sandbox.patterns.errors import RestartLimitError
from trio_sandbox.patterns.fresh import Make, maker
from trio_sandbox.patterns.lives import Life, Work
from trio_sandbox.patterns.restarts import Restart, RestartPolicy, Restarts

FINAL = (InvalidConfigError, UnsupportedError, HostNotReadyError, SandboxAlreadyExistsError)
"""What no restart would mend."""


@attrs.frozen
class SupervisionEnd:
    """The end that was meant: `run` returned `result`, after so many restarts; None when the sandbox was stopped."""

    result: object
    restarts: int


@attrs.frozen
class Restarting:
    """What `on_restart` is told. number: of the restart, from 1. failure: None after an end that was meant. delay: in
    seconds, until it is made again.
    """

    number: int
    failure: Exception | None
    delay: float


async def supervise(
    run: Work,
    *,
    name: str = "supervised",
    policy: RestartPolicy | None = None,
    drain_timeout: float = 0.0,
    on_restart: Callable[[Restarting], None] | None = None,
    random: Random | None = None,
    make: Make | None = None,
    home: Home | None = None,
    **options: Any,
) -> SupervisionEnd:
    """Make a sandbox and `await run(sandbox)`; when that ends, kill the sandbox, and make the next as `policy` says.

    Each life has a sandbox of its own, under the same name, with options as for `Sandbox.create`; or from `make(name)`,
    an async context manager. A life has failed when `run` raises an Exception, when its sandbox crashes, whatever `run`
    does meanwhile, or cannot be made. It has ended as it was meant to when `run` returns, or the sandbox is stopped,
    drained or killed by anybody. on_restart: called before each restart. random: for the jitter of the delays.

    Returns after an end that was meant, unless it is always to be restarted. Raises RestartLimitError, from the last
    failure, when there were too many restarts; with `never` the failure itself; and at once what no restart would mend:
    InvalidConfigError, UnsupportedError, HostNotReadyError, SandboxAlreadyExistsError.

    Cancellation: no sandbox is left. drain_timeout: first, its sandbox drains for so many seconds: the programs that
    `run` has started may end by themselves, and what `run` does next in the sandbox is refused with
    SandboxDrainingError; then `run` is cancelled. With 0 it is cancelled at once.
    """
    problem = "" if drain_timeout >= 0 else "drain_timeout: must not be negative"
    making = maker(make, name, home, options, [problem] if problem else [])
    restarts = Restarts(policy or RestartPolicy(), random or Random())  # noqa: S311 - no secret
    wanted = restarts.policy.restart
    while True:
        began, failure, result = anyio.current_time(), None, None
        try:
            async with making(name) as sandbox:
                result = await Life(sandbox, run, drain_timeout).live()
        except FINAL:
            raise
        except Exception as error:
            if wanted is Restart.NEVER:
                raise
            failure = error
        if failure is None and wanted is not Restart.ALWAYS:
            return SupervisionEnd(result, restarts.count)
        now = anyio.current_time()
        delay = restarts.next_delay(now, now - began)
        if delay is None:
            raise RestartLimitError(name, restarts.policy.max_restarts, restarts.policy.window) from failure
        if on_restart is not None:
            on_restart(Restarting(restarts.count, failure, delay))
        await anyio.sleep(delay)
