"""A web service that runs what its users send, each request in a sandbox of its own.

    $ python examples/web_service.py &
    listening on http://127.0.0.1:8000
    $ curl --data 'print(6 * 7)' http://127.0.0.1:8000/run
    {"output": "42\n", "exit_code": 0}

It runs on asyncio, and as well on Trio. A client that goes away takes its sandbox along.
"""

from __future__ import annotations

import json
import sys
import uuid

import anyio
import anyio.abc
import h11

from trio_sandbox import ExecTimeoutError, HostLimitError, Sandbox, SandboxError, capture

MOST_CODE = 64 << 10
KEPT = 8 << 10
"""Bytes of output that are returned of the beginning, and of the end."""
AT_ONCE = anyio.CapacityLimiter(4)
"""How many sandboxes; further requests wait."""
TIMEOUT = 10.0
"""Seconds for a program."""
READ_TIMEOUT = 30.0
"""Seconds for a client to send its request."""


async def run_code(code: bytes) -> tuple[int, dict[str, object]]:
    """Run a Python program; HTTP status and answer."""
    try:
        async with (
            AT_ONCE,
            await Sandbox.create(f"web-{uuid.uuid4().hex[:12]}", image="local/base", memory=256) as sandbox,
        ):
            async with await sandbox.exec_stream(
                "python3", ["-"], stdin=code, user="nobody", timeout=TIMEOUT
            ) as program:
                output = await capture(program, head=KEPT, tail=KEPT)
    except ExecTimeoutError:
        return 200, {"error": f"it did not end within {TIMEOUT:g} s"}
    except HostLimitError:
        return 503, {"error": "too much to do; try again later"}
    except SandboxError as error:  # it made its machine crash, say
        return 500, {"error": str(error)}
    return 200, {"output": output.stdout.text() + output.stderr.text(), "exit_code": output.exit.code}


async def read_request(stream: anyio.abc.ByteStream, http: h11.Connection) -> tuple[h11.Request, bytes]:
    """One request with its body, which has a limit. Raises h11.RemoteProtocolError, anyio.EndOfStream."""
    request, body = None, b""
    while not isinstance(event := http.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive())
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MOST_CODE:
                raise h11.RemoteProtocolError("too large", error_status_hint=413)
    assert request is not None
    return request, body


async def answer(stream: anyio.abc.ByteStream, http: h11.Connection) -> tuple[int, dict[str, object]]:
    """Read a request and do what it asks for. Raises anyio.EndOfStream when the client goes away first."""
    try:
        with anyio.fail_after(READ_TIMEOUT):
            request, body = await read_request(stream, http)
    except (h11.RemoteProtocolError, TimeoutError) as error:
        return getattr(error, "error_status_hint", 408), {"error": str(error) or "too slow"}
    if (request.method, request.target) != (b"POST", b"/run"):
        return 404, {"error": "POST a program to /run"}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(raise_when_gone, stream)
        result = await run_code(body)
        tasks.cancel_scope.cancel()
    return result


async def raise_when_gone(stream: anyio.abc.ByteStream) -> None:
    """What cancels a run that nobody waits for any more. Raises anyio.EndOfStream or BrokenResourceError."""
    while True:
        await stream.receive()


async def serve_client(stream: anyio.abc.SocketStream) -> None:
    """One connection with one request."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=16 << 10)
    try:
        async with stream:
            status, content = await answer(stream, http)
            data = json.dumps(content).encode() + b"\n"
            headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(data))),
                ("Connection", "close"),
            ]
            head = http.send(h11.Response(status_code=status, headers=headers))
            await stream.send((head or b"") + data)
    except* (anyio.EndOfStream, anyio.BrokenResourceError):
        pass  # nobody is there to be told


async def main(port: int) -> None:
    """Listen on loopback. port: 0 is any."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port) as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - no Django
        print(f"listening on http://127.0.0.1:{port}", flush=True)
        await listener.serve(serve_client)


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
