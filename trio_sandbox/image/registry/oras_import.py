"""oras's client, imported without jsonschema until somebody needs that.

oras checks manifests with it when they are pushed or pulled by methods that are not called here: manifests are checked
by `image.oci`. Its import takes a third of the time that oras's does, and every pull of a new process pays for it.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Late(ModuleType):
    """Stands for a module, and imports it when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for these
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


def _provider() -> ModuleType:
    name = "jsonschema"
    if name in sys.modules:
        return importlib.import_module("oras.provider")
    sys.modules[name] = late = _Late(name)
    try:
        return importlib.import_module("oras.provider")
    finally:
        if sys.modules.get(name) is late:  # whoever imports it by itself gets the real one
            del sys.modules[name]


Registry: Any = _provider().Registry
