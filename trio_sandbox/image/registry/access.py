"""How an image's registry is reached: settings, credentials, and clients, which are made when they are needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio

from trio_sandbox.home import Home
from trio_sandbox.image.faults import ImageFault, NoSuchImage
from trio_sandbox.image.registry.calls import interruptible
from trio_sandbox.image.registry.credentials import Credentials, DockerConfig, find_credentials
from trio_sandbox.image.registry.endpoint import Endpoint, endpoints
from trio_sandbox.image.registry.failures import RegistryFailure
from trio_sandbox.image.registry.reference import RegistryReference
from trio_sandbox.image.registry.settings import Settings
from trio_sandbox.registry_auth import RegistryAuth

if TYPE_CHECKING:
    from trio_sandbox.image.registry.client import RegistryClient

T = TypeVar("T")


@attrs.define(eq=False)
class RegistryAccess:
    """For one pull. Holds connections only while a call is under way. For one Trio run, by any number of tasks."""

    settings: Settings
    auth: RegistryAuth | None = attrs.field(default=None, repr=False)
    _config: DockerConfig | None = None
    _clients: dict[tuple[str, str], RegistryClient] = attrs.field(factory=dict, repr=False)
    _broken: set[Endpoint] = attrs.field(factory=set)
    _users: int = 0

    @classmethod
    def load(cls, home: Home, auth: RegistryAuth | None = None) -> RegistryAccess:
        """Read registries.toml. auth: goes to the registry that an image names, and not to its mirrors.

        Raises InvalidConfigError.
        """
        return cls(Settings.load(home), auth)

    async def ask(self, reference: RegistryReference, work: Callable[[RegistryClient], Awaitable[T]]) -> T:
        """What `work` brings from the first mirror that can, else from the registry itself.

        Raises what `work` raised for the registry itself: RegistryFailure, ImageFault. A mirror that failed is not
        asked again.
        """
        with self._connections():
            for endpoint in endpoints(reference, self.settings):
                if not endpoint.is_mirror:
                    return await work(await self._client(endpoint))
                if endpoint not in self._broken:
                    try:
                        return await work(await self._client(endpoint))
                    except (RegistryFailure, ImageFault, NoSuchImage):
                        self._broken.add(endpoint)
        raise AssertionError("the last endpoint is no mirror")

    @contextmanager
    def _connections(self) -> Iterator[None]:
        """Connections are kept while somebody is in the block, and closed with the last."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                for client in self._clients.values():
                    client.close()

    async def _client(self, endpoint: Endpoint) -> RegistryClient:
        key = (endpoint.registry, endpoint.repository)
        if key not in self._clients:
            credentials = await self._credentials(endpoint)
            # Nothing but an import, which cannot be woken, and which nobody needs to wait for.
            await trio.to_thread.run_sync(_import_client, abandon_on_cancel=True)
            client = await interruptible(lambda: _make(endpoint, credentials))
            self._clients.setdefault(key, client)
        return self._clients[key]

    async def _credentials(self, endpoint: Endpoint) -> Credentials | None:
        if self.auth is not None and not endpoint.is_mirror:
            return Credentials.of(self.auth)
        if self._config is None:
            self._config = DockerConfig.load()
        return await find_credentials(endpoint.registry, self._config)


def _import_client() -> None:
    """Takes 125 ms the first time."""
    import trio_sandbox.image.registry.client  # noqa: F401


def _make(endpoint: Endpoint, credentials: Credentials | None) -> RegistryClient:
    from trio_sandbox.image.registry.client import RegistryClient

    return RegistryClient(endpoint, credentials)
