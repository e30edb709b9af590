"""The package's surface and its layers: what can be imported from where."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import trio_sandbox
import trio_sandbox.testing

ROOT = Path(trio_sandbox.__file__).parent


def imported_modules(path: Path) -> set[str]:
    """The modules that a file imports at run time, anywhere in it; `if TYPE_CHECKING:` blocks do not count."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_every_public_name_loads_and_is_what_the_type_checker_sees() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text())
    seen = {
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("trio_sandbox.")
        for alias in node.names
    }
    assert seen == {(module, name) for name, module in trio_sandbox._MODULE_OF.items()}
    for name in trio_sandbox._MODULE_OF:
        assert getattr(trio_sandbox, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = trio_sandbox.no_such_name


def test_every_name_of_the_test_tools_loads() -> None:
    tree = ast.parse((ROOT / "testing" / "__init__.py").read_text())
    seen = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("trio_sandbox.testing.")
        for alias in node.names
    }
    assert seen == set(trio_sandbox.testing.__all__)
    for name in seen:
        assert getattr(trio_sandbox.testing, name) is not None
    with pytest.raises(AttributeError):
        _ = trio_sandbox.testing.no_such_name


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, trio_sandbox; print([m for m in ('trio', 'anyio', 'attrs', 'click', 'oras') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_nothing_stands_on_the_test_tools() -> None:
    for path in ROOT.rglob("*.py"):
        if "testing" not in path.relative_to(ROOT).parts:
            assert not any(module.startswith("trio_sandbox.testing") for module in imported_modules(path)), path


SANS_IO = [
    *(f"relay/{name}.py" for name in ("frames", "messages", "client_messages", "events", "credit", "budget", "states")),
    *(f"relay/{name}.py" for name in ("outgoing", "mux", "session")),
    "lifecycle.py",
    "config.py",
    "image_source.py",
    "image_info.py",
    "registry_auth.py",
    "pull_event.py",
    "convert.py",
    "errors.py",
    "labels.py",
    "client/options.py",
    "client/event_lines.py",
    *(f"patterns/{name}.py" for name in ("failures", "listening", "restarts")),
]


@pytest.mark.parametrize("name", SANS_IO)
def test_the_core_does_no_io(name: str) -> None:
    forbidden = {"trio", "anyio", "socket", "time", "subprocess", "asyncio", "select", "threading", "selectors"}
    assert not imported_modules(ROOT / name) & forbidden


def test_the_client_half_is_anyio_only_and_the_runtime_half_trio_only() -> None:
    for path in ROOT.rglob("*.py"):
        modules = {module.split(".")[0] for module in imported_modules(path)}
        if {"client", "patterns"} & set(path.relative_to(ROOT).parts):
            assert "trio" not in modules, path
        else:
            assert "anyio" not in modules, path


CACHE_FOR_CLIENTS = {f"trio_sandbox.image.cache.{name}" for name in ("catalog", "collect", "names")} | {
    "trio_sandbox.image.pin"
}
"""What of the image layer does no async I/O, so that a program on asyncio may look at the cache."""


@pytest.mark.parametrize(
    ("layer", "may_not_import"),
    [
        ("relay", {"vm", "host", "image", "client", "sandbox", "cli"}),
        ("vm", {"relay", "host", "image", "client", "sandbox", "cli"}),
        ("logs", {"vm", "host", "image", "client", "sandbox", "cli"}),
        ("host", {"relay", "client", "sandbox", "cli"}),
        ("image", {"relay", "vm", "host", "snapshot", "client", "sandbox", "cli"}),
        ("snapshot", {"relay", "client", "sandbox", "cli"}),
        ("client", {"vm", "host", "image", "sandbox", "cli", "patterns"}),
        ("patterns", {"vm", "host", "image", "sandbox", "cli", "process", "state"}),
    ],
)
def test_imports_point_one_way(layer: str, may_not_import: set[str]) -> None:
    for path in (ROOT / layer).rglob("*.py"):
        for module in imported_modules(path):
            parts = module.split(".")
            if layer == "client" and module in CACHE_FOR_CLIENTS:
                continue
            assert parts[0] != "trio_sandbox" or len(parts) < 2 or parts[1] not in may_not_import, (path, module)


def test_looking_at_the_cache_imports_no_event_loop() -> None:
    code = (
        "import sys; from trio_sandbox.image.cache import catalog, collect, names\n"
        "from trio_sandbox.snapshot import create, store\n"
        "print([name for name in ('trio', 'anyio', 'oras', 'requests', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
