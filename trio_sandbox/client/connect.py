"""`connect`: a handle of a sandbox that listens at an address. anyio only."""

from __future__ import annotations

import os

import anyio

from trio_sandbox.client.connection import Connection, open_connection
from trio_sandbox.client.remote import CONNECT_TIMEOUT, RemoteControl
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.errors import ConnectionLostError


async def connect(address: str | os.PathLike[str], *, timeout: float = CONNECT_TIMEOUT, wait: float = 0.0) -> Sandbox:
    """A handle of a sandbox that another process of this user runs with `listen=address`.

    `async with await connect("worker.sock") as sb:` lets go of it at the end of the block: what was started there is
    killed, apart from programs that survive their client; the sandbox itself goes on.

    timeout: seconds for the relay to answer (10). wait: seconds to wait for a place when all 16 channels are taken (0:
    not at all). Raises ClientLimitError (limit and usage), ConnectionLostError when nobody listens or answers.
    Cancellation: nothing is left.
    """
    if timeout <= 0 or wait < 0:
        raise ValueError("timeout must be positive, and wait non-negative")
    connection: Connection | None = None
    try:
        with anyio.move_on_after(timeout + wait):
            connection = await open_connection(address)
            return Sandbox(RemoteControl(connection, await connection.join(control=False, wait=wait)))
    except BaseException:
        if connection is not None:
            with anyio.CancelScope(shield=True):  # closing a socket does not wait
                await connection.aclose()
        raise
    if connection is not None:
        await connection.aclose()
    raise ConnectionLostError(os.fspath(address))
