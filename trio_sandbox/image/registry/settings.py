"""`registries.toml` in the data folder: how to reach registries.

    connect_timeout = 10.0        # seconds; of every registry that does not say otherwise
    read_timeout = 30.0
    retries = 5

    [registry."registry.example:5000"]
    insecure = true               # plain http
    ca = "registry-ca.pem"        # certificates to trust besides the system's; relative to the data folder
    mirrors = ["mirror.example/hub"]

A mirror is HOST[:PORT][/PATH]; PATH comes before the repository's own. It is asked before the registry itself, in the
order given, with the settings and credentials of its own host.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from trio_sandbox.errors import InvalidConfigError
from trio_sandbox.home import Home
from trio_sandbox.image.registry.reference import DOCKER_HUB, HUB_HOSTS, is_registry, is_repository
from trio_sandbox.settings_file import read_settings

SETTINGS_FILE = "registries.toml"
MAX_SETTINGS_BYTES = 1 << 20
MAX_TIMEOUT = 3600.0
MAX_RETRIES = 100
_KINDS = {"insecure": bool, "ca": str, "mirrors": list, "connect_timeout": float, "read_timeout": float, "retries": int}
_GENERAL = ("connect_timeout", "read_timeout", "retries")


@attrs.frozen
class RegistrySettings:
    """How one registry is reached."""

    insecure: bool = False
    """Plain http."""
    ca: Path | None = None
    """A PEM file of certificates to trust besides the system's."""
    mirrors: tuple[str, ...] = ()
    connect_timeout: float = 10.0
    """Seconds."""
    read_timeout: float = 30.0
    """Seconds without a single byte."""
    retries: int = 5
    """Further tries, without any progress between them, after a failure that may pass."""


@attrs.frozen
class Settings:
    """What the file says."""

    general: RegistrySettings = RegistrySettings()
    registries: Mapping[str, RegistrySettings] = attrs.field(factory=dict)

    @classmethod
    def load(cls, home: Home) -> Settings:
        """Read the file of the data folder; without one, nothing is special.

        Raises InvalidConfigError, which names every fault.
        """
        document = read_settings(home, SETTINGS_FILE, MAX_SETTINGS_BYTES)
        if document is None:
            return cls()
        return cls.from_document(document, home.root, str(home.root / SETTINGS_FILE))

    @classmethod
    def from_document(cls, document: Mapping[str, Any], folder: Path, name: str = SETTINGS_FILE) -> Settings:
        """What a parsed file means. folder: of relative paths. Raises InvalidConfigError, which names every fault."""
        problems: list[str] = []
        tables = document.get("registry", {})
        general = _settings(
            {key: value for key, value in document.items() if key != "registry"},
            RegistrySettings(),
            _GENERAL,
            folder,
            name,
            problems,
        )
        registries = {}
        if not isinstance(tables, dict):
            problems.append(f'{name}: registry: must be tables, [registry."HOST"]')
            tables = {}
        for registry, table in tables.items():
            where = f"{name}: registry.{registry!r}"
            if not is_registry(registry):
                problems.append(f"{where}: is no HOST or HOST:PORT")
            if registry in HUB_HOSTS:
                problems.append(f"{where}: the name of Docker Hub is {DOCKER_HUB!r}")
            if not isinstance(table, dict):
                problems.append(f"{where}: must be a table")
                continue
            registries[registry] = _settings(table, general, tuple(_KINDS), folder, where, problems)
        if problems:
            raise InvalidConfigError(problems)
        return cls(general, registries)

    def of(self, registry: str) -> RegistrySettings:
        """How this registry is reached."""
        return self.registries.get(registry, self.general)


def _settings(
    table: Mapping[str, Any],
    base: RegistrySettings,
    known: tuple[str, ...],
    folder: Path,
    where: str,
    problems: list[str],
) -> RegistrySettings:
    """`base` with what `table` says; what is wrong is added to `problems`."""
    good = {}
    for key, value in table.items():
        if key not in known:
            problems.append(f"{where}: {key}: is not known; there is {', '.join(known)}")
        elif (problem := _problem(key, value, folder)) is not None:
            problems.append(f"{where}: {key}: {problem}")
        else:
            good[key] = _converted(key, value, folder)
    settings = attrs.evolve(base, **good)
    if settings.insecure and settings.ca is not None:
        problems.append(f"{where}: ca: says nothing together with insecure = true")
    return settings


def _problem(key: str, value: Any, folder: Path) -> str | None:
    if key in ("connect_timeout", "read_timeout"):
        right = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MAX_TIMEOUT
        return None if right else f"must be a number of seconds over 0, at most {MAX_TIMEOUT:g}"
    if key == "retries":
        return None if type(value) is int and 0 <= value <= MAX_RETRIES else f"must be 0 to {MAX_RETRIES}"
    if key == "insecure":
        return None if isinstance(value, bool) else "must be true or false"
    if key == "ca":
        if not isinstance(value, str) or not value or "\0" in value:
            return "must be the path of a file"
        path = _path(value, folder)
        return None if path.is_file() and os.access(path, os.R_OK) else f"there is no file {str(path)!r} to read"
    if not isinstance(value, list) or not all(isinstance(mirror, str) for mirror in value):
        return "must be a list of HOST[:PORT][/PATH]"
    wrong = [mirror for mirror in value if not _is_mirror(mirror)]
    return f"no HOST[:PORT][/PATH]: {', '.join(map(repr, wrong))}" if wrong else None


def _is_mirror(text: str) -> bool:
    registry, slash, path = text.partition("/")
    return is_registry(registry) and (is_repository(path) if slash else True)


def _converted(key: str, value: Any, folder: Path) -> Any:
    if key == "ca":
        return _path(value, folder)
    return tuple(value) if key == "mirrors" else value


def _path(text: str, folder: Path) -> Path:
    return folder / Path(text).expanduser()
