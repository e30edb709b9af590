"""Credentials for a registry: what is taken for some, and where they go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trio_sandbox.config import PullPolicy, SandboxConfig
from trio_sandbox.errors import InvalidConfigError
from trio_sandbox.home import Home
from trio_sandbox.process.image_order import ImageOrder, ImageWork
from trio_sandbox.process.order import Order
from trio_sandbox.registry_auth import RegistryAuth
from trio_sandbox.state.rows import Tenure

AUTH = RegistryAuth("me", "s3cret-word")


def config(**options: Any) -> SandboxConfig:
    return SandboxConfig.from_options("worker", {"image": "demo", **options})


@pytest.mark.parametrize(
    "given", [AUTH, {"username": "me", "password": "s3cret-word"}, RegistryAuth.basic("me", "s3cret-word")]
)
def test_credentials_reach_the_sandbox_process_and_nothing_else(given: Any, tmp_path: Path) -> None:
    asked = config(registry_auth=given, pull_policy="always")
    assert asked.registry_auth == AUTH
    assert "s3cret" not in asked.to_json()
    assert SandboxConfig.from_json(asked.to_json()).registry_auth is None
    assert "s3cret" not in repr(asked) + str(asked) + repr(AUTH)
    order = Order(asked, Home(tmp_path), Tenure.NEW, detached=False)
    assert "s3cret" not in repr(order)
    there = Order.from_json(order.to_json()).config
    assert (there.registry_auth, there.pull_policy) == (AUTH, PullPolicy.ALWAYS)


@pytest.mark.parametrize(
    "wrong",
    ["me:s3cret", ("me", "s3cret"), {"user": "me"}, RegistryAuth("", "s3cret"), RegistryAuth("a:b", "s3cret"), 3],
)
def test_wrong_credentials_are_named_and_not_told(wrong: Any) -> None:
    with pytest.raises(InvalidConfigError, match=r"^registry_auth: ") as caught:
        config(registry_auth=wrong)
    assert "s3cret" not in str(caught.value)


def test_an_order_for_images_brings_them_whole(tmp_path: Path) -> None:
    order = ImageOrder(ImageWork.PULL, Home(tmp_path), ("demo",), policy=PullPolicy.NEVER, auth=AUTH)
    assert "s3cret" not in repr(order)
    assert ImageOrder.from_json(order.to_json()) == order
