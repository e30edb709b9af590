"""Where this host gets its own packages from: the base image is made of the same.

The answer comes from apt itself, so every way of writing sources down is understood, and no mirror is named here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.tools import ToolError, run_tool

OS_RELEASE = Path("/etc/os-release")
COMPONENT = "main"
REMEDY = "build the base image on Debian or Ubuntu, or pass another image (image='./image.tar')"

_ORIGINS = ("debian", "ubuntu")
_POCKETS = ("", "-updates", "-security")
_FIELDS = "$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)|$(IDENTIFIER)"
_PROXY = re.compile(r'Acquire::(https?)::Proxy "([^"]+)";')


@attrs.frozen
class AptSources:
    """A distribution release and the lines that fetch it."""

    suite: str
    lines: tuple[str, ...]
    """For a sources.list."""
    environment: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    """The proxies that apt is configured to use; not to be written into an image."""


async def host_sources() -> AptSources:
    """The host's own release, its updates and security fixes. Raises HostNotReadyError where there is no such thing."""
    codename = release_codename(OS_RELEASE)
    try:
        # Release information knows what "stable" means today; where nothing was downloaded yet, the names have to do.
        known = await _targets()
        lines = source_lines(known, codename) or source_lines(await _targets("--no-release-info"), codename)
        dump = await run_tool(["apt-config", "dump"])
    except HostNotReadyError as error:
        raise HostNotReadyError("base image", "this host has no apt", REMEDY) from error
    except ToolError as error:
        raise HostNotReadyError("base image", f"apt does not list its sources: {error}", REMEDY) from error
    if not lines:
        raise HostNotReadyError("base image", f"apt has no source for {codename!r} of Debian or Ubuntu", REMEDY)
    proxies = {f"{scheme}_proxy": url for scheme, url in _PROXY.findall(dump.stdout.decode(errors="replace"))}
    return AptSources(codename, lines, proxies)


async def _targets(*options: str) -> list[str]:
    argv = ["apt-get", "indextargets", *options, "--format", _FIELDS, "Identifier: Packages"]
    return (await run_tool(argv)).stdout.decode(errors="replace").splitlines()


def release_codename(os_release: Path) -> str:
    """The Debian or Ubuntu release that this host is, or stands on. Raises HostNotReadyError."""
    try:
        pairs = (line.partition("=") for line in os_release.read_text(errors="replace").splitlines())
        facts = {name: value.strip("\"'") for name, _, value in pairs}
    except OSError:
        facts = {}
    for name in ("DEBIAN_CODENAME", "UBUNTU_CODENAME", "VERSION_CODENAME"):
        if re.fullmatch(r"[a-z][a-z0-9-]*", facts.get(name, "")):
            return facts[name]
    raise HostNotReadyError("base image", "this host does not say which Debian or Ubuntu release it is", REMEDY)


def source_lines(targets: Iterable[str], codename: str) -> tuple[str, ...]:
    """The sources.list lines for `codename` from apt's list of index files; third parties are left out."""
    wanted = [codename + pocket for pocket in _POCKETS]
    lines: dict[str, None] = {}
    for target in targets:
        fields = target.split("|")
        if len(fields) != 6:
            continue
        uri, release, known_codename, component, origin, _ = fields
        if component != COMPONENT or not re.fullmatch(r"[a-z+]+:\S+", uri):
            continue
        if origin.lower() in _ORIGINS and known_codename in wanted:
            lines[f"deb {uri} {known_codename} {COMPONENT}"] = None
        elif origin.startswith("$") and release in wanted:
            lines[f"deb {uri} {release} {COMPONENT}"] = None
    return tuple(sorted(lines, key=lambda line: (wanted.index(line.split()[2]), line)))
