"""A web service that runs what its users send, each request in a sandbox of its own.

    $ python examples/web_service.py &
    listening on http://127.0.0.1:8000
    $ curl --data 'print(6 * 7)' http://127.0.0.1:8000/
    {"output": "42\\n", "exit_code": 0}

It runs on asyncio, and as well on Trio. A client that goes away takes its sandbox along. Of HTTP it has what the
example needs; behind a real web framework `run_code` stays as it is.
"""

from __future__ import annotations

import argparse
import json
import signal
import uuid
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from trio_sandbox import ExecTimeoutError, HostLimitError, Sandbox, SandboxError, capture

MOST_HEAD, MOST_CODE = 16 << 10, 64 << 10
KEPT = 8 << 10
"""Bytes of output that are returned of the beginning, and of the end."""
AT_ONCE = 4
"""How many sandboxes; further requests wait."""
TIMEOUT = 10.0
"""Seconds for a program."""
READ_TIMEOUT = 30.0
"""Seconds for a client to send its request."""

Answer = tuple[str, dict[str, Any]]
"""HTTP status and body."""


class BadRequest(Exception):
    """What a client sent cannot be read. The text is the HTTP status."""


async def run_code(code: bytes, limiter: anyio.CapacityLimiter) -> Answer:
    """Run a Python program in a machine that nobody has used before, and that nobody uses again."""
    name = f"web-{uuid.uuid4().hex[:12]}"
    try:
        async with limiter, await Sandbox.create(name, image="local/base", ephemeral=True) as sandbox:
            async with await sandbox.exec_stream(
                "python3", ["-"], stdin=code, user="nobody", timeout=TIMEOUT
            ) as program:
                output = await capture(program, head=KEPT, tail=KEPT)
    except ExecTimeoutError:
        return "200 OK", {"error": f"it did not end within {TIMEOUT:g} s"}
    except HostLimitError:
        return "503 Service Unavailable", {"error": "too much to do; try again later"}
    except SandboxError as error:  # it made its machine crash, say
        return "500 Internal Server Error", {"error": str(error)}
    return "200 OK", {"output": output.stdout.text() + output.stderr.text(), "exit_code": output.exit.code}


async def read_request(stream: anyio.abc.ByteReceiveStream) -> bytes:
    """The body of one POST request. Raises BadRequest, and what the stream raises when the client goes away."""
    buffered = BufferedByteReceiveStream(stream)
    try:
        with anyio.fail_after(READ_TIMEOUT):
            head = await buffered.receive_until(b"\r\n\r\n", MOST_HEAD)
            request, *lines = head.decode("latin-1").split("\r\n")
            if not (request.startswith("POST / ") and request.endswith((" HTTP/1.0", " HTTP/1.1"))):
                raise BadRequest("400 Bad Request")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = headers.get("content-length", "")
            if not (length.isascii() and length.isdigit()):
                raise BadRequest("411 Length Required")
            if len(length) > 9 or int(length) > MOST_CODE:
                raise BadRequest("413 Content Too Large")
            return await buffered.receive_exactly(int(length))
    except TimeoutError:
        raise BadRequest("408 Request Timeout") from None
    except anyio.DelimiterNotFound:
        raise BadRequest("431 Request Header Fields Too Large") from None


async def run_while_there(stream: anyio.abc.ByteReceiveStream, code: bytes, limiter: anyio.CapacityLimiter) -> Answer:
    """Run the program for as long as its client is there. Raises what the stream raises when it goes away."""

    async def watch() -> None:
        while True:
            await stream.receive()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        result = await run_code(code, limiter)
        tasks.cancel_scope.cancel()
    return result


async def main(port: int) -> None:
    """Serve on loopback until Ctrl-C, which ends all sandboxes. port: 0 is any."""
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def serve_client(stream: anyio.abc.SocketStream) -> None:
        """One connection with one request."""
        try:
            async with stream:
                try:
                    status, content = await run_while_there(stream, await read_request(stream), limiter)
                except BadRequest as error:
                    status, content = str(error), {"error": "POST a program to /, of 64 KiB at most"}
                body = json.dumps(content).encode() + b"\n"
                head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                await stream.send(f"{head}Connection: close\r\n\r\n".encode() + body)
        except* (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
            pass  # nobody is there to be told

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve_client)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - no Django
            print(f"listening on http://127.0.0.1:{port}", flush=True)
            async for _ in signals:
                tasks.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run what users send, each request in a sandbox of its own.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    options = parser.parse_args()
    anyio.run(main, options.port, backend=options.backend)
