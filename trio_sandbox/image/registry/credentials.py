"""Who we are to a registry: what Docker's config file knows, itself or through its credential helpers.

`$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`: `credHelpers` of the registry's host, else `credsStore`,
else `auths`; where none of them knows the host, nobody in particular. Nothing of what they say is logged or part of an
error.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import trio

from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.oci import parse_object
from trio_sandbox.image.registry.failures import Refused
from trio_sandbox.image.registry.reference import DOCKER_HUB, HUB_HOSTS
from trio_sandbox.registry_auth import BEARER_USER, RegistryAuth

MAX_CONFIG_BYTES = 1 << 20
MAX_HELPER_BYTES = 1 << 16
"""Of a helper's answer."""
HELPER_TIMEOUT = 20.0
"""Seconds; a helper may have to ask a keyring or a cloud."""
HUB_KEY = "https://index.docker.io/v1/"
"""Docker Hub's name in Docker's config file."""
IDENTITY_USER = "<token>"
"""The user name by which a helper says that its secret is an identity token."""
_HELPER = re.compile(r"[A-Za-z0-9_.-]{1,100}", re.ASCII)


@attrs.frozen
class Credentials:
    """Who somebody is: a name and a password, or an identity token, which only buys other tokens, or a bearer token."""

    username: str = ""
    password: str = attrs.field(default="", repr=False)
    identity_token: str = attrs.field(default="", repr=False)
    bearer_token: str = attrs.field(default="", repr=False)

    @classmethod
    def of(cls, auth: RegistryAuth) -> Credentials:
        if auth.username == BEARER_USER:
            return cls(bearer_token=auth.password)
        return cls(auth.username, auth.password)

    @property
    def basic(self) -> str | None:
        """The header value of basic authentication."""
        if not self.password and not self.username:
            return None
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@attrs.frozen
class DockerConfig:
    """What the file says. helpers: by host."""

    auths: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    helpers: Mapping[str, str] = attrs.field(factory=dict)
    store: str | None = None

    @classmethod
    def load(cls, path: Path | None = None) -> DockerConfig:
        """Read the file; what is not there says nothing. Raises Refused for one that cannot be read."""
        folder = os.environ.get("DOCKER_CONFIG")
        path = path or (Path(folder) if folder else Path("~/.docker").expanduser()) / "config.json"
        problem = None
        try:
            with path.open("rb") as file:
                data = file.read(MAX_CONFIG_BYTES + 1)
            if len(data) > MAX_CONFIG_BYTES:
                problem = f"more than {MAX_CONFIG_BYTES} bytes"
            else:
                return cls.parse(data)
        except (FileNotFoundError, NotADirectoryError):
            return cls()
        except OSError as error:
            problem = error.strerror
        except ImageFault as fault:
            problem = str(fault)
        raise Refused(f"{path}: {problem}", hint="repair the file, or name another folder in $DOCKER_CONFIG")

    @classmethod
    def parse(cls, data: bytes) -> DockerConfig:
        """What the bytes of the file mean. Raises ImageFault."""
        document = parse_object(data, "Docker's config file")
        auths, helpers, store = document.get("auths"), document.get("credHelpers"), document.get("credsStore")
        return cls(
            {_host(key): value for key, value in auths.items()} if isinstance(auths, dict) else {},
            {_host(key): value for key, value in helpers.items() if isinstance(value, str)}
            if isinstance(helpers, dict)
            else {},
            store if isinstance(store, str) and store else None,
        )

    def entry(self, registry: str) -> Credentials | None:
        """What `auths` says about a registry."""
        entry = self.auths.get(_host(registry))
        if not isinstance(entry, dict):
            return None
        text = {key: value for key, value in entry.items() if isinstance(value, str)}
        username, password = text.get("username", ""), text.get("password", "")
        if text.get("auth"):
            try:
                decoded = base64.b64decode(text["auth"], validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                return None
            username, _, password = decoded.rstrip("\0").partition(":")
        found = Credentials(username, password, text.get("identitytoken", ""), text.get("registrytoken", ""))
        return found if attrs.astuple(found) != ("", "", "", "") else None


async def find_credentials(registry: str, config: DockerConfig) -> Credentials | None:
    """Who we are to a registry, as Docker would find out. None: nobody in particular.

    A helper that is not there, fails or says nonsense knows nobody. Cancellation: a helper is killed and reaped.
    """
    helper = config.helpers.get(_host(registry)) or config.store
    found = None
    if helper is not None and _HELPER.fullmatch(helper):
        key = HUB_KEY if _host(registry) == DOCKER_HUB else registry
        answer = await _ask_helper(f"docker-credential-{helper}", key)
        found = _parse_answer(answer) if answer is not None else None
    return found or config.entry(registry)


async def _ask_helper(program: str, key: str) -> bytes | None:
    """What a helper prints, or None when it has nothing to say, or too much, or is too slow."""
    try:
        process = await trio.lowlevel.open_process(
            [program, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return None
    answer = b""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with trio.move_on_after(HELPER_TIMEOUT) as scope:
            try:
                await process.stdin.send_all(key.encode())
                await process.stdin.aclose()
            except trio.BrokenResourceError:
                pass  # one that knows its answer need not read
            while len(answer) <= MAX_HELPER_BYTES and (data := await process.stdout.receive_some()):
                answer += data
            if len(answer) <= MAX_HELPER_BYTES:
                await process.wait()
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)
    good = not scope.cancelled_caught and process.returncode == 0 and len(answer) <= MAX_HELPER_BYTES
    return answer if good else None


async def _end(process: trio.Process) -> None:
    """Kill what still runs, with whatever it started, and take it off the list of processes."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, 9)
        except ProcessLookupError:
            pass
        await process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            await trio.aclose_forcefully(stream)


def _parse_answer(answer: bytes) -> Credentials | None:
    try:
        document = parse_object(answer, "a credential helper's answer")
    except ImageFault:
        return None
    username, secret = document.get("Username"), document.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str) or not secret:
        return None
    return Credentials(identity_token=secret) if username == IDENTITY_USER else Credentials(username, secret)


def _host(key: str) -> str:
    """The registry that a key of the config file means: they come with a scheme and a path, or without."""
    host = key.partition("://")[2] or key
    host = host.partition("/")[0]
    return DOCKER_HUB if host in HUB_HOSTS else host
