"""`simulated_pool`: the pool of `open_pool`, with simulated guests in its sandboxes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from trio_sandbox.admission.admitted import Urgency
from trio_sandbox.config import SandboxConfig
from trio_sandbox.pool import Pool, running_pool
from trio_sandbox.pool_options import pool_config
from trio_sandbox.runtime import Runtime
from trio_sandbox.testing.guest import SimulatedGuest
from trio_sandbox.testing.sandbox import serve_simulated_sandbox


@asynccontextmanager
async def simulated_pool(
    name: str = "simulated",
    guest: Callable[[], SimulatedGuest] = SimulatedGuest,
    *,
    warm_pool: int = 2,
    max_age: float = 3600.0,
    **options: Any,
) -> AsyncIterator[Pool]:
    """A pool as `open_pool` gives it, with simulated guests: for tests of what leases sandboxes, in virtual time.

    guest: called for each sandbox; what it raises is a start that failed. The rest as for `open_pool`. Nothing is
    written anywhere, and there are no limits of the host. Raises and ends as `open_pool` does. Trio only.
    """
    config = pool_config(name, warm_pool, max_age, {"image": "simulated", **options})

    async def serve(config: SandboxConfig, urgency: Urgency, *, task_status: trio.TaskStatus[Runtime]) -> None:
        await serve_simulated_sandbox(config, guest(), None, task_status=task_status)

    async with running_pool(Pool(name, config, warm_pool, max_age, serve)) as pool:
        yield pool
