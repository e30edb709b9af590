"""A registry's image as the root file system of a sandbox: from the cache, or pulled into it. Trio.

The registry client is imported when a registry must be asked, and not before: it costs more than a look-up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from trio_sandbox.config import PullPolicy
from trio_sandbox.home import Home
from trio_sandbox.image.cache.leases import Lease
from trio_sandbox.image.cache.names import canonical_name
from trio_sandbox.image.cache.obtain import Obtaining, Remote, Resolved
from trio_sandbox.image.faults import blame
from trio_sandbox.image.limits import DEFAULT_LIMITS, Limits
from trio_sandbox.image.oci import Descriptor
from trio_sandbox.image.registry.reference import RegistryReference
from trio_sandbox.image.rootfs import RootFilesystem
from trio_sandbox.pull_event import OnPull, PullEvent, ignore
from trio_sandbox.registry_auth import RegistryAuth

if TYPE_CHECKING:
    from trio_sandbox.image.registry.access import RegistryAccess


async def prepare_pulled(
    name: str,
    home: Home,
    lease: Lease,
    *,
    policy: PullPolicy = PullPolicy.IF_MISSING,
    auth: RegistryAuth | None = None,
    on_pull: OnPull = ignore,
    limits: Limits = DEFAULT_LIMITS,
    remote: Callable[[], Remote] | None = None,
) -> RootFilesystem:
    """The root file system of the image `name`, which may be in the cache already: `policy` says what that means.

    auth: for its registry, before what the machine knows of it. on_pull: told each step, in this task. lease: keeps it
    from being removed, as long as the lease lasts. remote: asked in the place of the registry. Several callers, in one
    process or in many, download it once.

    Raises InvalidConfigError, ImageNotFoundError, ImagePullError, InvalidImageError, UnsupportedError, StorageError,
    HostNotReadyError. Cancellation: what has come is kept, to go on from.
    """
    on_pull(PullEvent("resolving", reference=name))
    reference = canonical_name(name)
    with blame(name):
        obtaining = Obtaining(reference, name, home, policy, lease, on_pull, limits)
        image = await obtaining.run(remote or partial(_Registry.of, name, home, auth))
    on_pull(PullEvent("complete", reference=name, layer_count=len(image.layers)))
    return RootFilesystem.of(name, image, home)


@attrs.frozen
class _Registry:
    """The `obtain.Remote` of an image, as this machine reaches it."""

    reference: RegistryReference
    access: RegistryAccess

    @classmethod
    def of(cls, name: str, home: Home, auth: RegistryAuth | None) -> _Registry:
        from trio_sandbox.image.registry.access import RegistryAccess

        return cls(RegistryReference.parse(name), RegistryAccess.load(home, auth))

    async def resolve(self) -> Resolved:
        from trio_sandbox.image.registry.resolve import resolve_image

        return await resolve_image(self.reference, self.access)

    async def fetch(self, descriptor: Descriptor, part: Path, /) -> None:
        from trio_sandbox.image.registry.fetch import fetch_blob

        await fetch_blob(self.reference, descriptor, part, self.access, _ignore)


def _ignore(count: int) -> None:
    """How far a download is tells the size of its part: see `download.py`."""
