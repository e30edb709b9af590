"""The connections of requests, so that they can be cancelled, and nothing but our own settings decides on TLS."""

from __future__ import annotations

import logging
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from trio_sandbox.image.registry.calls import current_call, in_a_call, open_socket

IDLE_CONNECTIONS = 16
"""Kept open to one host between two requests."""


# At its lowest level urllib3 logs whole addresses. Where a registry redirects to, a signature in them opens the blob.
logging.getLogger("urllib3.connectionpool").addFilter(lambda record: not in_a_call())


class _Watched(HTTPConnection):
    """Tells the current call of its socket, when it is new and when it is used again."""

    def _new_conn(self) -> socket.socket:
        timeout = self.timeout if isinstance(self.timeout, int | float) else None
        assert self.port is not None
        try:
            return open_socket(self._dns_host, self.port, timeout, self.socket_options or ())
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "connecting took too long") from error
        except OSError as error:
            raise NewConnectionError(self, f"connecting failed: {error.strerror or error}") from error

    def request(self, *args: Any, **options: Any) -> None:
        if self.sock is not None:
            current_call().attach(self.sock)
        super().request(*args, **options)


class _WatchedTLS(_Watched, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _PoolTLS(HTTPSConnectionPool):
    ConnectionCls = _WatchedTLS


_POOLS = {"http": _Pool, "https": _PoolTLS}


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """Trusts the system's certificates and those in `ca`. Raises OSError (ssl.SSLError too)."""
    context = ssl.create_default_context()
    system = ssl.get_default_verify_paths()
    if not (system.cafile or system.capath):
        context.load_verify_locations(certifi.where())
    if ca is not None:
        context.load_verify_locations(ca)
    return context


class Transport(HTTPAdapter):
    """Sends one request over a kept or a new connection, and follows nothing by itself."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        """context: for https; None: the system's, which takes 30 ms and is made when it is needed."""
        self._context = context
        super().__init__(pool_connections=8, pool_maxsize=IDLE_CONNECTIONS, max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def close(self) -> None:
        """Close idle connections, now; urllib3 itself leaves that to the garbage collector."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        """requests' own adds certificates of its own to the context."""
        parts = urlsplit(request.url)
        if parts.scheme == "https" and self._context is None:
            self._context = tls_context(None)
        options = {"ssl_context": self._context} if parts.scheme == "https" else {}
        return {"scheme": parts.scheme, "host": parts.hostname, "port": parts.port}, options

    def cert_verify(self, *args: Any, **options: Any) -> None:
        """The context has it all."""
