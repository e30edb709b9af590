"""What a sandbox is asked to be, checked whole before anything is created. No I/O."""

from __future__ import annotations

import enum
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from trio_sandbox.errors import InvalidConfigError, UnsupportedError
from trio_sandbox.image_source import ImageKind, ImageSource, is_path, path_text
from trio_sandbox.labels import labels_problem
from trio_sandbox.patch import PatchConfig, patches_problems
from trio_sandbox.registry_auth import RegistryAuth, auth_of, auth_problem
from trio_sandbox.scripts import scripts_problems

NAME_LIMIT = 128
"""Bytes of a sandbox's name."""
HOSTNAME_LIMIT = 63
"""Bytes of a host name: one DNS label, and within Linux's 64."""
MEMORY_MIN_MIB = 128
MEMORY_MAX_MIB = 1 << 20
CPUS_MAX = 64
TOKEN_MIN = 16
"""Characters of a bearer token that somebody chose."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
AGENT_PATH = "/.msb/bin"
"""Where the guest agent puts its own programs: `msb-event`."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


class PullPolicy(enum.StrEnum):
    """When an image is fetched from its registry."""

    ALWAYS = "always"
    IF_MISSING = "if-missing"
    NEVER = "never"


class LogLevel(enum.StrEnum):
    """How much goes into runtime.log."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


PLANNED: dict[str, str] = {
    "init": "the sandbox's own agent is PID 1",
    "volumes": "send data through stdin",
    "ports": "sandboxes have no network yet",
    "network": "sandboxes have no network yet",
    "secrets": "sandboxes have no network yet",
}
"""Documented options that this version does not have, and what to do instead. None, False and empty values mean "not
given".
"""


@attrs.frozen
class WebSocketAddress:
    """Where the relay listens for WebSocket clients. port 0 for a free one; token None for a random one.

    The handle tells what became of it: `Sandbox.addresses` and `Sandbox.token`.
    """

    host: str = "127.0.0.1"
    port: int = 0
    token: str | None = attrs.field(default=None, repr=False)


def _copied(value: Any) -> Any:
    """The caller's mapping may change later; what is none is for the checks to name."""
    return dict(value) if isinstance(value, Mapping) else value


def _tuple(value: Any) -> Any:
    """A list as what cannot change later; what is none is for the checks to name."""
    return tuple(value) if isinstance(value, list) else value


def _path_text(value: Any) -> Any:
    return os.fsdecode(value) if isinstance(value, os.PathLike) else value


def _image_text(value: Any) -> Any:
    return None if value is None else path_text(value)


def _policy(value: Any) -> Any:
    return PullPolicy(value) if isinstance(value, str) and value in list(PullPolicy) else value


def _level(value: Any) -> Any:
    return LogLevel(value) if isinstance(value, str) and value in list(LogLevel) else value


@attrs.frozen(kw_only=True)
class SandboxConfig:
    """A valid sandbox configuration: building one checks it, boots nothing, and raises InvalidConfigError with every
    problem at once.

    Options as for `open_sandbox`; `Sandbox.create` takes one instead of a name and options. memory in MiB, times in
    seconds.
    """

    name: str
    image: str | os.PathLike[str] | ImageSource | None = attrs.field(default=None, converter=_image_text)
    snapshot: str | os.PathLike[str] | None = attrs.field(default=None, converter=_image_text)
    cpus: int = 1
    memory: int = 512
    workdir: str | None = None
    shell: str = "/bin/sh"
    hostname: str | None = None
    user: str | None = None
    entrypoint: Sequence[str] | None = attrs.field(default=None, converter=_tuple)
    env: Mapping[str, str] = attrs.field(factory=dict, converter=_copied)
    scripts: Mapping[str, str] = attrs.field(factory=dict, converter=_copied)
    patches: Sequence[PatchConfig] = attrs.field(default=(), converter=_tuple)
    pull_policy: PullPolicy = attrs.field(default=PullPolicy.IF_MISSING, converter=_policy)
    registry_auth: RegistryAuth | None = attrs.field(default=None, converter=auth_of)
    boot_timeout: float = 60.0
    admission_timeout: float = 60.0
    warm: bool = True
    max_duration: float | None = None
    idle_timeout: float | None = None
    labels: Mapping[str, str] = attrs.field(factory=dict, converter=_copied)
    ephemeral: bool = False
    listen: str | os.PathLike[str] | None = attrs.field(default=None, converter=_path_text)
    websocket: WebSocketAddress | None = None
    log_level: LogLevel | None = attrs.field(default=None, converter=_level)
    quiet_logs: bool = False

    def __attrs_post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in attrs.fields(type(self)) if field.name != "name"}
        problems = [*_name_problems(self.name), *_source_problems(values), *_option_problems(values)]
        if problems:
            raise InvalidConfigError(problems)

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any], problems: Sequence[str] = ()) -> SandboxConfig:
        """The configuration that the keyword arguments of `open_sandbox` and `Sandbox.create` mean; None is "not
        given". problems: what was found wrong with other arguments, to be named with the rest.

        Raises InvalidConfigError with every problem, else UnsupportedError for a planned option.
        """
        given = {key: value for key, value in options.items() if value is not None}
        known = {field.name for field in attrs.fields(cls)}
        found = [*_name_problems(name), *problems]
        other = given.pop("from_snapshot", None)
        if other is not None and given.setdefault("snapshot", other) is not other:
            found.append("from_snapshot: the same as snapshot; pass one of them")
        found += _source_problems(given)
        found += [f"unknown option {key!r}" for key in given if key not in known and key not in PLANNED]
        found += _option_problems(given)
        if found:
            raise InvalidConfigError(found)
        for key, hint in PLANNED.items():
            if key in given and given[key] not in (False, "", {}, [], ()):
                raise UnsupportedError(f"the option {key}=", hint)
        return cls(name=name, **{key: value for key, value in given.items() if key in known})

    def in_folder(self, folder: str) -> SandboxConfig:
        """The same with the paths that are relative to `folder` absolute, so that another process finds what this one
        means, and a later start too.
        """
        changes: dict[str, Any] = {}
        if self.image is not None:
            source = ImageSource.of(self.image).in_folder(folder)
            changes["image"] = source if isinstance(self.image, ImageSource) else source.reference
        if isinstance(self.snapshot, str) and is_path(self.snapshot) and not self.snapshot.startswith("~"):
            changes["snapshot"] = os.path.join(folder, self.snapshot)
        if self.listen is not None:
            changes["listen"] = os.path.join(folder, self.listen)
        changes["patches"] = tuple(patch.in_folder(folder) for patch in self.patches)
        return attrs.evolve(self, **changes)

    def to_json(self) -> str:
        """The configuration as a JSON object, from which `from_json` makes an equal one. What is secret is left out:
        credentials for a registry, and a bearer token.
        """
        told = attrs.evolve(self, registry_auth=None)
        plain = attrs.asdict(told, filter=lambda field, value: value != field.default or field.name == "name")
        if self.websocket is not None:
            plain["websocket"] = {"host": self.websocket.host, "port": self.websocket.port}
        if isinstance(self.image, ImageSource):
            plain["image"] = self.image.to_plain()
        if self.patches:
            plain["patches"] = [patch.to_plain() for patch in self.patches]
        return json.dumps(plain, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> SandboxConfig:
        """The configuration that `to_json` wrote. Raises InvalidConfigError for anything else."""
        try:
            plain = json.loads(text)
            if (address := plain.get("websocket")) is not None:
                plain["websocket"] = WebSocketAddress(**address)
            if isinstance(plain.get("image"), dict):
                plain["image"] = ImageSource.from_plain(plain["image"])
            if (patches := plain.get("patches")) is not None:
                plain["patches"] = [PatchConfig.from_plain(patch) for patch in patches]
            name = plain.pop("name")
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise InvalidConfigError([f"not the JSON of a configuration: {error}"]) from error
        return cls.from_options(name, plain)

    @property
    def root(self) -> ImageSource:
        """What its root file system is made of. Not to be asked where a snapshot tells."""
        assert self.image is not None
        return ImageSource.of(self.image)

    @property
    def has_disk_root(self) -> bool:
        """Whether its root is a disk image, which has no layer beneath it and none above."""
        return _is_disk(self.image)

    @property
    def effective_hostname(self) -> str:
        """The host name given, else the name, shortened with a digest when it is too long for one."""
        if self.hostname is not None:
            return self.hostname
        name = self.name.replace("_", "-").strip("-.")
        if len(name) <= HOSTNAME_LIMIT:
            return name
        return f"{name[:54].strip('-.')}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"


def _option_problems(options: Mapping[str, Any]) -> list[str]:
    """What is wrong with the options that are given; None is "not given"."""
    checked = ((key, check(options[key])) for key, check in CHECKS.items() if options.get(key) is not None)
    found = [f"image: {problem}" for problem in _image_problems(options.get("image"))]
    if not found and options.get("patches") and _is_disk(options.get("image")):
        found.append("patches: a disk image is taken as it is; change its files with `fs` when the sandbox runs")
    found += [f"{key}: {problem}" for key, problem in checked if problem]
    found += _snapshot_problems(options.get("snapshot"))
    for key, problems in (("patches", patches_problems), ("scripts", scripts_problems)):
        found += problems(options[key]) if options.get(key) is not None else []
    return found


def _is_disk(image: str | os.PathLike[str] | ImageSource | None) -> bool:
    return image is not None and ImageSource.of(image).kind is ImageKind.DISK


def _source_problems(options: Mapping[str, Any]) -> list[str]:
    """Of a new sandbox: it is made of an image or of a snapshot."""
    given = [key for key in ("image", "snapshot") if options.get(key) is not None]
    if len(given) == 2:
        return ["image, snapshot: pass one of them; a snapshot knows its image"]
    return [] if given else ["image: required, unless snapshot= is given"]


def _snapshot_problems(value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, (str, os.PathLike)):
        return [f"snapshot: must be str, os.PathLike or Snapshot, not {type(value).__name__}"]
    problem = _text(os.fspath(value))
    return [f"snapshot: {problem}"] if problem else []


def _name_problems(name: object) -> list[str]:
    if not isinstance(name, str):
        return [f"name: must be str, not {type(name).__name__}"]
    if not name:
        return ["name: must not be empty"]
    if len(name.encode()) > NAME_LIMIT:
        return [f"name: {len(name.encode())} bytes, at most {NAME_LIMIT} are allowed"]
    if not _NAME.fullmatch(name):
        return [f"name: {name!r} must start with a letter or digit and hold only letters, digits, '.', '_' and '-'"]
    return []


def _whole(value: object, least: int, most: int, unit: str = "") -> str | None:
    if type(value) is not int:
        return f"must be int, not {type(value).__name__}"
    return None if least <= value <= most else f"{value} is not within {least} to {most}{unit}"


def _text(value: object, limit: int = 4096) -> str | None:
    if not isinstance(value, str):
        return f"must be str, not {type(value).__name__}"
    if not value or "\0" in value or len(value.encode(errors="surrogateescape")) > limit:
        return f"must be 1 to {limit} bytes without NUL"
    return None


def _absolute(value: object) -> str | None:
    return _text(value) or (None if str(value).startswith("/") else f"{value!r} is not an absolute path")


def _image_problems(value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, (str, os.PathLike, ImageSource)):
        return [f"must be str, os.PathLike or ImageSource, not {type(value).__name__}"]
    return ImageSource.of(value).problems()


def _words(value: object) -> str | None:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return f"must be a list of str, not {type(value).__name__}"
    if not all(isinstance(word, str) and "\0" not in word for word in value):
        return "must be a list of str without NUL"
    return None


def _hostname(value: object) -> str | None:
    problem = _text(value, HOSTNAME_LIMIT)
    return problem or (None if _HOSTNAME.fullmatch(str(value)) else f"{value!r} is not a host name")


def _seconds(value: object) -> str | None:
    if type(value) not in (int, float):
        return f"must be a number of seconds, not {type(value).__name__}"
    return None if isinstance(value, (int, float)) and 0 < value < float("inf") else f"{value} is not above 0"


def grace_problem(value: object) -> str | None:
    """What is wrong with seconds to end by, of which 0 means at once; None when nothing is."""
    return None if value == 0 and type(value) in (int, float) else _seconds(value)


def flag_problem(value: object) -> str | None:
    """What is wrong with a flag, or None."""
    return None if isinstance(value, bool) else f"must be bool, not {type(value).__name__}"


def _socket_path(value: object) -> str | None:
    if not isinstance(value, (str, os.PathLike)):
        return f"must be str or os.PathLike, not {type(value).__name__}"
    return None if os.path.basename(os.fspath(value)) else f"{os.fspath(value)!r} does not name a file"


def _websocket(value: object) -> str | None:
    if not isinstance(value, WebSocketAddress):
        return f"must be WebSocketAddress, not {type(value).__name__}"
    if (problem := _whole(value.port, 0, 65_535)) is not None:
        return f"port: {problem}"
    if value.token is not None and len(str(value.token)) < TOKEN_MIN:
        return f"token: must be str of {TOKEN_MIN} characters or more"
    return None


def _one_of(value: object, kind: type[enum.StrEnum]) -> str | None:
    if not isinstance(value, str):
        return f"must be str, not {type(value).__name__}"
    return None if value in list(kind) else f"{value!r} is not one of {', '.join(kind)}"


def env_problem(value: object) -> str | None:
    """What is wrong with a mapping of environment variables, or None."""
    if not isinstance(value, Mapping):
        return f"must be a mapping, not {type(value).__name__}"
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            return f"{key!r}: names and values must be str"
        if not key or "=" in key or "\0" in key + text:
            return f"{key!r}: a name must not be empty or hold '='; nothing may hold NUL"
    return None


CHECKS = {
    "cpus": lambda value: _whole(value, 1, CPUS_MAX),
    "memory": lambda value: _whole(value, MEMORY_MIN_MIB, MEMORY_MAX_MIB, " MiB"),
    "workdir": _absolute,
    "shell": _absolute,
    "hostname": _hostname,
    "user": lambda value: _text(value, 256),
    "entrypoint": _words,
    "env": env_problem,
    "pull_policy": lambda value: _one_of(value, PullPolicy),
    "registry_auth": auth_problem,
    "boot_timeout": _seconds,
    "admission_timeout": grace_problem,
    "warm": flag_problem,
    "max_duration": _seconds,
    "idle_timeout": _seconds,
    "labels": labels_problem,
    "ephemeral": flag_problem,
    "listen": _socket_path,
    "websocket": _websocket,
    "log_level": lambda value: _one_of(value, LogLevel),
    "quiet_logs": flag_problem,
}
