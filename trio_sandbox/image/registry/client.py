"""One repository in one registry, by HTTP. Blocking; `calls.interruptible` is what runs it.

A subclass of oras's client, which lacks what hostile and distant servers need: every request here has timeouts, follows
redirects without taking credentials along, logs in and does so again when a token has expired, and fails with a
`RegistryFailure` whose text holds no secret. Retrying is left to the caller, who can be cancelled while it waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any
from urllib.parse import urlencode

import attrs
import requests
import urllib3
from requests.utils import get_environ_proxies

from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.registry.addresses import host_of, redirect_target, same_origin, token_server
from trio_sandbox.image.registry.calls import Interrupted, current_call
from trio_sandbox.image.registry.challenge import Challenge, parse_challenges, parse_token
from trio_sandbox.image.registry.credentials import Credentials
from trio_sandbox.image.registry.endpoint import Endpoint
from trio_sandbox.image.registry.failures import Refused, RegistryFailure, Transient
from trio_sandbox.image.registry.oras_import import Registry
from trio_sandbox.image.registry.statuses import connection_failure, refusal
from trio_sandbox.image.registry.transport import Transport, tls_context

MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
MAX_TOKEN_ANSWER = 1 << 20
MAX_ERROR_BODY = 1 << 14
CHUNK = 1 << 18
"""Bytes that are read at once, at most."""
TOKEN_SHARE = 0.9
"""Of a token's life; after that a new one is asked for before it is refused."""
CLIENT_ID = "trio-sandbox"


@attrs.frozen
class _Authorization:
    header: str = attrs.field(repr=False)
    until: float
    """By time.monotonic()."""


class RegistryClient(Registry):  # type: ignore[misc]  # oras has no types
    """One repository in one registry. May be used by several threads at once."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials | None) -> None:
        """Opens no connection. Raises Refused when the registry's certificates cannot be read."""
        settings = endpoint.settings
        super().__init__(hostname=endpoint.host, insecure=settings.insecure)
        problem = None
        try:
            context = None if settings.insecure else tls_context(settings.ca)
        except OSError as error:
            problem = error
        if problem is not None:
            raise Refused(f"{settings.ca}: no certificates in it", hint="`ca =` in registries.toml names a PEM file")
        self.endpoint = endpoint
        self._credentials = credentials
        self._transport = Transport(context)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, self._transport)
        self._timeouts = (settings.connect_timeout, settings.read_timeout)
        self._authorization: _Authorization | None = None
        self._login = threading.Lock()

    def close(self) -> None:
        """Close idle connections. The client can be used again."""
        self.session.close()

    def url(self, kind: str, name: str) -> str:
        """Where a `manifests` or `blobs` entry is."""
        return f"{self.prefix}://{self.endpoint.host}/v2/{self.endpoint.repository}/{kind}/{name}"

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        stream: bool = True,
    ) -> requests.Response:
        """The successful answer to a request, whose body is still to be read; the caller closes it.

        Logs in when the registry asks for that, and follows redirects. Raises RegistryFailure, Interrupted.
        """
        used, tried = self._header(), False
        while True:
            response = self._follow(method, url, data, {**(headers or {}), "Accept-Encoding": "identity"}, used)
            if response.status_code == 401 and not tried and same_origin(response.url, url):
                challenges = parse_challenges(response.headers.get("WWW-Authenticate", ""))
                response.close()
                used, tried = self._log_in(challenges, used), True
                continue
            if response.status_code in (200, 206):
                return response
            with _closing(response):
                raise refusal(response, self._error_body(response), self.endpoint, self._credentials is not None)

    def document(self, url: str, headers: Mapping[str, str], limit: int) -> tuple[bytes, requests.Response]:
        """The whole body of an answer of at most `limit` bytes, as it was sent. Raises RegistryFailure, ImageFault."""
        with _closing(self.do_request(url, headers=headers)) as response:
            return self._body(response, limit), response

    def chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The body of an answer as it was sent, as it comes. Raises Transient when it breaks off, Interrupted."""
        call = current_call()
        while True:
            call.check()
            failure: RegistryFailure | None = None
            chunk = b""
            try:
                # What stands for the blob's digest are the bytes as they are sent: nothing may be unpacked on the way.
                chunk = response.raw.read1(CHUNK, decode_content=False)
            except (urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as error:
                failure = connection_failure(error, host_of(response.url), self.endpoint)
            call.check()
            if failure is not None:
                raise failure
            if not chunk:
                return
            yield chunk

    def _body(self, response: requests.Response, limit: int) -> bytes:
        body = bytearray()
        until = time.monotonic() + 10 * self._timeouts[1]
        for chunk in self.chunks(response):
            body += chunk
            if len(body) > limit:
                raise ImageFault(f"an answer of more than {limit} bytes")
            if time.monotonic() > until:
                raise Transient("a small document took too long to come", status=response.status_code)
        return bytes(body)

    def _error_body(self, response: requests.Response) -> bytes:
        body = bytearray()
        try:
            for chunk in self.chunks(response):
                body += chunk
                if len(body) > MAX_ERROR_BODY:
                    return b""
        except RegistryFailure:
            return b""
        return bytes(body)

    def _follow(
        self, method: str, url: str, data: Any, headers: Mapping[str, str], authorization: str | None
    ) -> requests.Response:
        """The first answer that is no redirect. The header of authorization goes to the origin of `url` alone."""
        origin, proxies = url, {}
        for _ in range(MAX_REDIRECTS + 1):
            hop = dict(headers)
            if authorization is not None and same_origin(url, origin):
                hop["Authorization"] = authorization
            proxies = get_environ_proxies(url, no_proxy=None)
            response = self._send(url, requests.Request(method, url, data=data, headers=hop), proxies)
            if response.status_code not in REDIRECTS:
                return response
            response.close()
            url = redirect_target(url, response.headers.get("Location"), response.status_code)
        raise Refused(f"more than {MAX_REDIRECTS} redirects")

    def _send(self, url: str, request: requests.Request, proxies: Any) -> requests.Response:
        """One request and one answer. What requests raises holds addresses with signatures in them: it ends here."""
        call = current_call()
        call.check()
        try:
            prepared = request.prepare()
            return self._transport.send(prepared, stream=True, timeout=self._timeouts, proxies=proxies)
        except Interrupted:
            raise
        except (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as error:
            failure = connection_failure(error, host_of(url), self.endpoint)
        call.check()
        raise failure

    def _header(self) -> str | None:
        """What to send from the start: nothing before a registry asks, and no token that is about to expire."""
        known = self._authorization
        return known.header if known is not None and time.monotonic() < known.until else None

    def _log_in(self, challenges: list[Challenge], used: str | None) -> str:
        """The header that answers a refusal of `used`. One thread logs in, and the others wait for it."""
        current_call().acquire(self._login)
        try:
            known = self._header()
            if known is not None and known != used:
                return known
            self._authorization = None
            self._authorization = self._authorize(challenges, used)
            return self._authorization.header
        finally:
            self._login.release()

    def _authorize(self, challenges: list[Challenge], used: str | None) -> _Authorization:
        offered = {challenge.scheme: challenge for challenge in reversed(challenges)}
        who = self._credentials
        if "bearer" in offered:
            if who is not None and who.bearer_token:
                return _Authorization(f"Bearer {who.bearer_token}", float("inf"))
            return self._token(offered["bearer"])
        if "basic" in offered and who is not None and who.basic is not None and who.basic != used:
            return _Authorization(who.basic, float("inf"))
        raise self.endpoint.unauthorized(401, who is not None)

    def _token(self, challenge: Challenge) -> _Authorization:
        """Ask a token server for leave to pull from this repository, and for nothing else."""
        who, started = self._credentials, time.monotonic()
        realm = token_server(challenge.parameters.get("realm", ""), insecure=self.prefix == "http")
        query = {"scope": f"repository:{self.endpoint.repository}:pull"}
        if "service" in challenge.parameters:
            query["service"] = challenge.parameters["service"]
        headers = {"Accept-Encoding": "identity"}
        if who is not None and who.identity_token:
            form = {**query, "grant_type": "refresh_token", "client_id": CLIENT_ID}
            form["refresh_token"] = who.identity_token
            response = self._follow("POST", realm, form, headers, None)
        else:
            url = realm + ("&" if "?" in realm else "?") + urlencode(query)
            response = self._follow("GET", url, None, headers, who.basic if who is not None else None)
        with _closing(response):
            if response.status_code in (400, 401, 403):
                raise self.endpoint.unauthorized(response.status_code, who is not None)
            if response.status_code != 200:
                raise refusal(response, b"", self.endpoint, who is not None, what="its token server")
            token = parse_token(self._body(response, MAX_TOKEN_ANSWER))
        return _Authorization(f"Bearer {token.text}", started + TOKEN_SHARE * token.life)


@contextmanager
def _closing(response: requests.Response) -> Iterator[requests.Response]:
    try:
        yield response
    finally:
        response.close()
