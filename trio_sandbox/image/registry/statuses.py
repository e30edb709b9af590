"""From what an HTTP client met to failures with words of our own."""

from __future__ import annotations

import re
import socket
import ssl
from typing import Any

import requests
import urllib3

from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.oci import parse_object
from trio_sandbox.image.registry.endpoint import Endpoint
from trio_sandbox.image.registry.failures import Missing, Refused, RegistryFailure, Transient
from trio_sandbox.image.registry.retry import retry_after

PASSING = (429, 502, 503, 504)
"""Statuses that are worth another try."""
_CODE = re.compile(r"[A-Z][A-Z_]{0,60}", re.ASCII)


def refusal(
    response: requests.Response, body: bytes, endpoint: Endpoint, known: bool, what: str = "it"
) -> RegistryFailure:
    """What an answer that is no success means. known: we said who we are."""
    status = response.status_code
    code = _code(body)
    said = f"{what} answered {status}" + (f" ({code})" if code else "")
    if status in PASSING:
        return Transient(said, status=status, retry_after=retry_after(response.headers.get("Retry-After")))
    if status in (401, 403):
        return endpoint.unauthorized(status, known)
    if status == 404:
        return Missing(f"no such image or tag{f' ({code})' if code else ''}", status=404, hint="check the name")
    if status == 400 and b"HTTP request to an HTTPS server" in body:
        return Refused(
            "it speaks https, and was asked in plain http",
            status=status,
            hint=f'remove `insecure = true` from [registry."{endpoint.registry}"] in registries.toml',
        )
    return Refused(said, status=status, hint="that is for those who run it to mend")


def connection_failure(error: Exception, host: str, endpoint: Endpoint) -> RegistryFailure:
    """What an exception of the HTTP client means. host: the one that was talked to."""
    causes = _causes(error)
    section = f'[registry."{endpoint.registry}"] in registries.toml'
    for cause in causes:
        if isinstance(cause, requests.exceptions.InvalidURL):
            return Refused(f"the address at {host} is malformed")
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Refused(
                f"the certificate of {host} is not trusted: {cause.verify_message}",
                hint=f'name the file of its authority: `ca = "…"` below {section}',
            )
        if isinstance(cause, ssl.SSLError) and (cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")):
            return Refused(
                f"{host} does not speak https", hint=f"if it shall be plain http: `insecure = true` below {section}"
            )
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return Refused(f"no TLS with {host}: {cause.reason}", hint=f"see `ca` and `insecure` below {section}")
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return Refused(f"there is no host {host}", hint="check the name")
    kinds = (
        (urllib3.exceptions.NameResolutionError, f"the name {host} cannot be looked up"),
        (ConnectionRefusedError, f"nothing listens at {host}"),
        # Before the next: it is one of those, too.
        (urllib3.exceptions.NewConnectionError, f"{host} cannot be reached"),
        (urllib3.exceptions.ConnectTimeoutError, f"{host} cannot be reached in time"),
        ((urllib3.exceptions.ReadTimeoutError, TimeoutError), f"{host} sent nothing for too long"),
    )
    for kind, message in kinds:
        if any(isinstance(cause, kind) for cause in causes):
            return Transient(message)
    return Transient(f"the connection with {host} broke")


def _causes(error: BaseException) -> list[BaseException]:
    """An exception and what it was made of, wherever the libraries put that."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting and len(found) < 50:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return found


def _code(body: bytes) -> str | None:
    """The code of the first error that a registry's answer names."""
    try:
        errors = parse_object(body, "an error")["errors"]
        code = errors[0]["code"]
    except (ImageFault, LookupError, TypeError):
        return None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None
