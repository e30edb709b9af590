"""Registries that tests of several folders use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.registries import HAS_REGISTRY, LoopbackRegistry, running_registry


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackRegistry]:
    """A registry by plain http that lets everybody in. Each test takes repositories of its own."""
    if not HAS_REGISTRY:
        pytest.skip("docker-registry, skopeo and openssl are not installed")
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running
