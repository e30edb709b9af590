"""Prepare once, fork for each request: nobody waits for the warm-up again, and no request sees what another one did.

    $ python examples/fork_per_request.py
    prepared once
    "otter": found, request 1 of this process
    "sloth": not found, request 1 of this process
    "otter": found, request 1 of this process

The parent runs a server that has loaded a large table. A fork is a running copy of it, memory and processes included,
so each request talks to a process that is warm, and that has never answered anybody: each is its first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from trio_sandbox import Sandbox, map_sandboxes, open_sandbox, unix_socket_probe, wait_until_ready

SERVER = """
import socketserver

words = {f"word {number}" for number in range(200_000)} | {"otter"}
answered = 0

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        global answered
        answered += 1
        word = self.rfile.readline().decode().strip()
        found = "found" if word in words else "not found"
        self.wfile.write(f'"{word}": {found}, request {answered} of this process\\n'.encode())
        words.clear()  # what a request breaks is its own

socketserver.UnixStreamServer("/run/words.sock", Handler).serve_forever()
"""

ASK = """
import socket, sys

with socket.socket(socket.AF_UNIX) as client:
    client.connect("/run/words.sock")
    client.sendall(sys.argv[1].encode() + b"\\n")
    print(client.makefile().readline(), end="")
"""


@asynccontextmanager
async def forked(parent: Sandbox, name: str) -> AsyncIterator[Sandbox]:
    """What `map_sandboxes` makes its sandboxes with: a copy of the parent, which is gone after the block."""
    async with await parent.fork(name=name) as child:
        yield child


async def handle(child: Sandbox, word: str) -> str:
    """Answer one request, in a fork of its own."""
    return (await child.exec("python3", ["-c", ASK, word], timeout=30)).stdout_text


async def main() -> None:
    """Prepare a parent, and answer three requests, two at a time."""
    async with open_sandbox("prepared", image="local/base") as parent:
        async with await parent.exec_stream("python3", ["-c", SERVER]):
            await wait_until_ready(parent, unix_socket_probe("/run/words.sock"), timeout=60)
            print("prepared once")
            requests = ["otter", "sloth", "otter"]
            for answer in await map_sandboxes(handle, requests, limit=2, make=partial(forked, parent)):
                print(answer, end="")


if __name__ == "__main__":
    trio.run(main)
