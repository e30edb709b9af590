"""The names, the parameters and the defaults of the API document. What we have beyond it is keyword-only or last, and
has a default, so that a program written for the document means the same here.
"""

from __future__ import annotations

import inspect
from typing import Any

import attrs
import pytest

from trio_sandbox import Sandbox, SandboxConfig, SandboxHandle, SandboxMetrics
from trio_sandbox.client.metrics import MetricsStream
from trio_sandbox.client.pull_session import PullSession
from trio_sandbox.config import PLANNED
from trio_sandbox.pull_event import EVENT_TYPES, PullEvent

REQUIRED = inspect.Parameter.empty
EXEC = {
    "*cwd": None,
    "*user": None,
    "*env": None,
    "*timeout": None,
    "*stdin": None,
    "*tty": False,
    "*rlimits": None,
}

STATIC: dict[str, dict[str, Any]] = {
    "create": {"name": REQUIRED},
    "create_with_progress": {"name": REQUIRED},
    "create_detached": {"name": REQUIRED},
    "start": {"name": REQUIRED, "*detached": False},
    "start_detached": {"name": REQUIRED},
    "get": {"name": REQUIRED},
    "list": {},
    "remove": {"name": REQUIRED},
}
METHODS: dict[str, dict[str, Any]] = {
    "attach": {"cmd": REQUIRED, "args": None, "*cwd": None, "*user": None, "*env": None, "*detach_keys": None},
    "attach_shell": {},
    "detach": {},
    "drain": {},
    "exec": {"cmd": REQUIRED, "args": None, **EXEC},
    "exec_stream": {"cmd": REQUIRED, "args": None, **EXEC},
    "kill": {},
    "metrics": {},
    "metrics_stream": {"interval": 1.0},
    "remove_persisted": {},
    "shell": {"script": REQUIRED, **EXEC},
    "shell_stream": {"script": REQUIRED},
    "stop": {},
    "stop_and_wait": {},
    "wait": {},
    "pause": {},
    "resume": {},
    "wait_until_stopped": {},
    "request_drain": {},
    "ping": {},
    "touch": {},
}
HANDLE: dict[str, dict[str, Any]] = {
    "connect": {},
    "connect_with_timeout": {"timeout": REQUIRED},
    "start": {"*detached": False},
    "start_detached": {},
    "stop": {},
    "stop_with_timeout": {"timeout": REQUIRED},
    "kill": {},
    "remove": {},
    "metrics": {},
    "refresh": {},
}


def check(function: Any, documented: dict[str, Any], *, is_method: bool) -> None:
    """The documented parameters come first and in order; `*` marks keyword-only. The rest can be left out."""
    parameters = list(inspect.signature(function).parameters.values())[1 if is_method else 0 :]
    positional = [name for name in documented if not name.startswith("*")]
    assert [parameter.name for parameter in parameters[: len(positional)]] == positional
    found = {parameter.name: parameter for parameter in parameters}
    for name, default in documented.items():
        parameter = found.pop(name.removeprefix("*"))
        assert parameter.default == default
        assert (parameter.kind is inspect.Parameter.KEYWORD_ONLY) == name.startswith("*")
    for extra in found.values():
        assert extra.default is not REQUIRED or extra.kind is inspect.Parameter.VAR_KEYWORD, extra


@pytest.mark.parametrize("name", STATIC)
def test_static_methods(name: str) -> None:
    assert isinstance(inspect.getattr_static(Sandbox, name), staticmethod)
    check(getattr(Sandbox, name), STATIC[name], is_method=False)
    assert inspect.iscoroutinefunction(getattr(Sandbox, name)) == (name != "create_with_progress")


@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str) -> None:
    check(getattr(Sandbox, name), METHODS[name], is_method=True)
    assert inspect.iscoroutinefunction(getattr(Sandbox, name))


@pytest.mark.parametrize("name", HANDLE)
def test_methods_of_a_handle(name: str) -> None:
    check(getattr(SandboxHandle, name), HANDLE[name], is_method=True)
    assert inspect.iscoroutinefunction(getattr(SandboxHandle, name))


def test_properties() -> None:
    for name in ("name", "owns_lifecycle"):
        getter = inspect.getattr_static(Sandbox, name)
        assert isinstance(getter, property)
        assert inspect.iscoroutinefunction(getter.fget)  # await sb.name
    getter = inspect.getattr_static(Sandbox, "fs")
    assert isinstance(getter, property)
    assert not inspect.iscoroutinefunction(getter.fget)
    for name in ("name", "status", "config_json", "created_at", "updated_at"):
        assert isinstance(inspect.getattr_static(SandboxHandle, name), property)


DOCUMENTED_OPTIONS = (
    *("image", "snapshot", "cpus", "memory", "workdir", "shell", "hostname", "user", "entrypoint", "init", "replace"),
    *("replace_with_timeout", "max_duration", "idle_timeout", "env", "scripts", "pull_policy", "log_level"),
    *("registry_auth", "volumes", "patches", "ports", "network", "secrets", "detached"),
)


@pytest.mark.parametrize("option", DOCUMENTED_OPTIONS)
def test_every_documented_option_is_known(option: str) -> None:
    """Taken, or refused by name as one of a later version; never as a typing mistake."""
    taken = {field.name for field in attrs.fields(SandboxConfig)} | set(inspect.signature(Sandbox.create).parameters)
    assert option in taken | set(PLANNED)


def test_documented_defaults_of_the_options() -> None:
    config = SandboxConfig(name="worker", image="local/base")
    assert (config.cpus, config.memory, config.shell, config.pull_policy) == (1, 512, "/bin/sh", "if-missing")
    assert (config.env, config.max_duration, config.idle_timeout, config.hostname) == ({}, None, None, None)


def test_values() -> None:
    assert {field.name for field in attrs.fields(SandboxMetrics)} == {
        *("cpu_percent", "disk_read_bytes", "disk_write_bytes", "memory_bytes", "memory_limit_bytes"),
        *("net_rx_bytes", "net_tx_bytes", "timestamp_ms", "uptime_ms"),
    }
    assert {field.name for field in attrs.fields(PullEvent)} == {
        *("event_type", "reference", "manifest_digest", "layer_count", "total_download_bytes", "layer_index"),
        *("digest", "diff_id", "downloaded_bytes", "total_bytes", "bytes_read"),
    }
    assert len(EVENT_TYPES) == 14
    assert {"recv", "__aiter__", "__anext__"} <= set(dir(MetricsStream))
    assert {"__aenter__", "__aexit__", "result"} <= set(dir(PullSession))
