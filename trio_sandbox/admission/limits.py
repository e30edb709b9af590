"""What all sandboxes of a data folder may use together: from the host, or from `limits.toml` in the data folder.

    memory = 16384     # MiB: guest memory, and what the emulator of each sandbox needs beside it
    boots = 4          # sandboxes that start at the same time
    sandboxes = 100    # sandboxes that run, those that start included

What is not said is as the host suggests. A change counts for what asks from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from trio_sandbox.admission.host_size import memory_mib, processors
from trio_sandbox.errors import InvalidConfigError
from trio_sandbox.home import Home
from trio_sandbox.settings_file import read_settings

LIMITS_FILE = "limits.toml"
MAX_FILE_BYTES = 64 << 10
MEMORY_SHARE = 0.9
"""Of the host's memory, when nothing else is said."""
BOOTS_PER_PROCESSOR = 2
"""A boot is not all computing: with one for each processor, they would idle for a sixth of the time."""
SANDBOXES = 1000
MAXIMA = {"memory": 1 << 30, "boots": 4096, "sandboxes": 4096}
RESOURCES = tuple(MAXIMA)


@attrs.frozen
class Limits:
    """memory in MiB; boots in flight and sandboxes in numbers."""

    memory: int
    boots: int
    sandboxes: int = SANDBOXES

    @classmethod
    def of_host(cls) -> Limits:
        """What the host suggests."""
        return cls(max(1, int(memory_mib() * MEMORY_SHARE)), max(2, BOOTS_PER_PROCESSOR * processors()))

    @classmethod
    def load(cls, home: Home) -> Limits:
        """What the file of the data folder says, or the host. Raises InvalidConfigError, which names every fault."""
        document = read_settings(home, LIMITS_FILE, MAX_FILE_BYTES)
        if document is None:
            return cls.of_host()
        return cls.from_document(document, cls.of_host(), str(home.root / LIMITS_FILE))

    @classmethod
    def from_document(cls, document: Mapping[str, Any], suggested: Limits, name: str = LIMITS_FILE) -> Limits:
        """`suggested` with what a parsed file says. Raises InvalidConfigError, which names every fault."""
        problems = []
        for key, value in document.items():
            if key not in MAXIMA:
                problems.append(f"{name}: {key}: is not known; there is {', '.join(RESOURCES)}")
            elif type(value) is not int or not 1 <= value <= MAXIMA[key]:
                problems.append(f"{name}: {key}: must be a whole number from 1 to {MAXIMA[key]}")
        if problems:
            raise InvalidConfigError(problems)
        return attrs.evolve(suggested, **document)
