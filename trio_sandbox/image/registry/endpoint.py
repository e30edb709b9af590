"""Where a repository can be asked for: its registry, or a mirror of that."""

from __future__ import annotations

import attrs

from trio_sandbox.image.registry.failures import Refused
from trio_sandbox.image.registry.reference import DOCKER_HUB, RegistryReference
from trio_sandbox.image.registry.settings import RegistrySettings, Settings

HUB_HOST = "registry-1.docker.io"
"""Where Docker Hub answers."""


@attrs.frozen
class Endpoint:
    """One repository at one host."""

    registry: str
    """As settings and credentials know it."""
    repository: str
    settings: RegistrySettings
    is_mirror: bool = False

    @property
    def host(self) -> str:
        """HOST or HOST:PORT to connect to."""
        return HUB_HOST if self.registry == DOCKER_HUB else self.registry

    def unauthorized(self, status: int, known: bool) -> Refused:
        """The registry does not let us. known: we said who we are."""
        where = "" if self.registry == DOCKER_HUB else f" {self.registry}"
        if known:
            message, hint = "it refuses these credentials", f"check them, or log in anew: `docker login{where}`"
        else:
            message = "it does not give this to everybody"
            hint = f"log in with `docker login{where}`, or pass registry_auth="
        return Refused(message, status=status, hint=f"{hint}; a name that does not exist looks the same")


def endpoints(reference: RegistryReference, settings: Settings) -> tuple[Endpoint, ...]:
    """Where to ask for an image, in order."""
    origin = settings.of(reference.registry)
    found = []
    for mirror in origin.mirrors:
        registry, _, path = mirror.partition("/")
        repository = f"{path}/{reference.repository}" if path else reference.repository
        found.append(Endpoint(registry, repository, settings.of(registry), is_mirror=True))
    return (*found, Endpoint(reference.registry, reference.repository, origin))
