"""A hook of mkdocs (`mkdocs.yml`): pages and places in the navigation that are made of what is there.

The public names of the package, by subject, become the pages of the API, each filled from its docstring; a page of
`docs/` that the navigation does not name is put at the end of "How to".
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the package need not be installed

import trio_sandbox  # noqa: E402  after the path is set
from trio_sandbox import testing  # noqa: E402

_SANDBOXES = "Sandboxes"
_SUBJECTS = {
    "errors": "Errors",
    "client.program": "Programs",
    "client.outcome": "Programs",
    "client.options": "Programs",
    "client.terminal": "Programs",
    "client.attach": "Programs",
    "client.rlimits": "Programs",
    "relay.client_messages": "Programs",
    "client.fs": "Files",
    "image": "Images",
    "client.image": "Images",
    "client.pull_session": "Images",
    "pull_event": "Images",
    "registry_auth": "Images",
    "patch": "Images",
    "patterns": "Patterns",
    "logs": "Logs, events, metrics",
    "client.logs": "Logs, events, metrics",
    "client.metrics": "Logs, events, metrics",
    "client.event": "Logs, events, metrics",
}
"""By the beginning of the module's name; whatever is not here belongs to sandboxes."""


def subject(module: str) -> str:
    """The page on which the names of a module stand: that of the longest beginning that fits."""
    name = module.removeprefix("trio_sandbox.")
    fitting = [start for start in _SUBJECTS if name.startswith(start)]
    return _SUBJECTS[max(fitting, key=len)] if fitting else _SANDBOXES


def api_pages() -> dict[str, str]:
    """The text of each page of the API by its title."""
    names: dict[str, list[str]] = {title: [] for title in (_SANDBOXES, *dict.fromkeys(_SUBJECTS.values()))}
    for name in trio_sandbox.__all__:
        module = getattr(trio_sandbox, name).__module__
        names[subject(module) if module.startswith("trio_sandbox.") else _SANDBOXES].append(f"trio_sandbox.{name}")
    names["Testing"] = [f"trio_sandbox.testing.{name}" for name in testing.__all__]
    return {
        title: f"# {title}\n\n" + "\n".join(f"::: {name}\n" for name in found)
        for title, found in sorted(names.items(), key=lambda item: (item[0] == "Errors", item[0] == "Testing"))
    }


def address(title: str) -> str:
    """Where the page of this title is."""
    return "api/" + title.lower().replace(",", "").replace(" ", "-") + ".md"


def _named(nav: Any) -> set[str]:
    """All addresses in a navigation."""
    if isinstance(nav, str):
        return {nav}
    parts = nav.values() if isinstance(nav, dict) else nav
    return {address for part in parts for address in _named(part)}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation."""
    assert config.nav is not None
    sections = {title: pages for part in config.nav if isinstance(part, dict) for title, pages in part.items()}
    sections["Reference"].insert(0, {"API": [{title: address(title)} for title in api_pages()]})
    found = {str(path.relative_to(config.docs_dir)) for path in sorted(Path(config.docs_dir).rglob("*.md"))}
    sections["How to"].extend(sorted(found - _named(config.nav)))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the API."""
    for title, text in api_pages().items():
        files.append(File.generated(config, address(title), content=text))
    return files
