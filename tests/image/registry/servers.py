"""Servers beside a registry: one before it that does to requests what a test asks for, and one that gives tokens."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs

from tests.registries import PASSWORD, USER, Certificate, TokenAuth, sign_token


@attrs.define
class Fault:
    """What happens to the next `times` requests whose path holds `match`."""

    match: str = "/"
    times: int = 1
    status: int | None = None
    """Answer with this and nothing else."""
    headers: dict[str, str] = attrs.field(factory=dict)
    """Of the answer, besides or instead of its own."""
    body: bytes | None = None
    silent: bool = False
    """No answer at all, until the server ends."""
    stall: int | None = None
    """No more of the body after so many bytes, until the server ends."""
    cut: int | None = None
    """The connection ends after so many bytes of the body."""
    corrupt: bool = False
    """The last byte of the body is another."""
    extra: bytes = b""
    """More body than there is."""
    ignore_range: bool = False
    chunked: bool = False


@attrs.frozen
class Seen:
    """A request that came."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes = b""


@attrs.define(eq=False)
class Script:
    """What a server shall do, and what it has seen."""

    faults: list[Fault] = attrs.field(factory=list)
    seen: list[Seen] = attrs.field(factory=list)
    stuck: threading.Event = attrs.field(factory=threading.Event)
    """A request hangs."""
    released: threading.Event = attrs.field(factory=threading.Event)

    def next(self, path: str) -> Fault:
        for fault in self.faults:
            if fault.times and fault.match in path:
                fault.times -= 1
                return fault
        return Fault()

    def paths(self, part: str) -> list[Seen]:
        return [request for request in self.seen if part in request.path]

    def hang(self) -> None:
        self.stuck.set()
        self.released.wait()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def log_message(self, *_: Any) -> None:
        pass

    def receive(self) -> Seen:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        seen = Seen(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        self.script.seen.append(seen)
        return seen

    def answer(self, status: int, headers: dict[str, str], body: bytes, fault: Fault) -> None:
        if fault.corrupt:
            body = body[:-1] + bytes([body[-1] ^ 1])
        body += fault.extra
        self.send_response(status)
        headers = {name: value for name, value in headers.items() if name not in fault.headers}
        if fault.chunked:
            headers = {**headers, "Transfer-Encoding": "chunked"}
            headers.pop("Content-Length", None)
        else:
            headers["Content-Length"] = str(len(body))
        for name, value in {**headers, **fault.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        end = min(len(body) if limit is None else limit for limit in (fault.stall, fault.cut))
        if fault.chunked:
            self.wfile.write(b"%x\r\n%b\r\n" % (end, body[:end]) if end else b"")
            self.wfile.write(b"0\r\n\r\n" if end == len(body) else b"")
        else:
            self.wfile.write(body[:end])
        self.wfile.flush()
        if fault.stall is not None:
            self.script.hang()
        self.close_connection = fault.stall is not None or fault.cut is not None


@contextmanager
def _served(handler: type[_Handler], script: Script) -> Iterator[str]:
    class Server(ThreadingHTTPServer):
        daemon_threads = False

        def handle_error(self, *_: Any) -> None:
            """A client that goes away is what the tests are about."""

    class Bound(handler):  # type: ignore[valid-type, misc]
        timeout = 5  # an idle connection does not hold up the end

    Bound.script = script
    with Server(("127.0.0.1", 0), Bound) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            script.released.set()
            server.shutdown()
            thread.join()


@contextmanager
def faulty(upstream: str, *faults: Fault) -> Iterator[tuple[str, Script]]:
    """A proxy before the registry at `upstream`, by plain http: its address, and what it shall do and has seen."""
    script = Script(list(faults))

    class Handler(_Handler):
        def do_GET(self) -> None:
            seen, fault = self.receive(), self.script.next(self.path)
            if fault.silent:
                self.script.hang()
                self.close_connection = True
                return
            if fault.status is not None:
                self.answer(fault.status, {}, fault.body or b"", fault)
                return
            dropped = {"host", "connection", "accept-encoding"} | ({"range"} if fault.ignore_range else set())
            headers = {name: value for name, value in seen.headers.items() if name not in dropped}
            connection = http.client.HTTPConnection(upstream)
            try:
                connection.request("GET", self.path, headers=headers)
                response = connection.getresponse()
                body = response.read() if fault.body is None else fault.body
                kept = {
                    name: value
                    for name, value in response.getheaders()
                    if name not in ("Content-Length", "Connection", "Date")
                }
                self.answer(response.status, kept, body, fault)
            finally:
                connection.close()

    with _served(Handler, script) as address:
        yield address, script


@contextmanager
def token_server(certificate: Certificate, life: float = 300) -> Iterator[tuple[TokenAuth, Script]]:
    """Gives those who know the password every token that they ask for, and everybody else an empty one."""
    script = Script()
    basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(_Handler):
        def do_GET(self) -> None:
            self.give(parse_qs(urlsplit(self.path).query), self.receive().headers.get("authorization") == basic)

        def do_POST(self) -> None:
            form = parse_qs(self.receive().body.decode())
            self.give(form, form.get("refresh_token") == [PASSWORD])

        def give(self, query: dict[str, list[str]], known: bool) -> None:
            fault = self.script.next(self.path)
            if fault.status is not None:
                self.answer(fault.status, {}, fault.body or b"", fault)
                return
            now = int(time.time())
            kind, name, actions = query["scope"][0].split(":") if "scope" in query else ("", "", "")
            access = [{"type": kind, "name": name, "actions": actions.split(",")}] if known and kind else []
            claims: dict[str, Any] = {"iss": "issuer.test", "sub": USER, "aud": query["service"][0], "access": access}
            claims |= {"exp": now + 300, "nbf": now - 10, "iat": now, "jti": str(len(self.script.seen))}
            answer = {"token": sign_token(certificate, claims), "expires_in": life}
            self.answer(200, {"Content-Type": "application/json"}, json.dumps(answer).encode(), fault)

    with _served(Handler, script) as address:
        yield TokenAuth(f"http://{address}/token", certificate.certificate), script
