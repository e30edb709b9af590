"""What the pages say of benchmarks and bounds is what the code has."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.__main__ import PARTS
from trio_sandbox.image import limits
from trio_sandbox.relay.frames import MAX_BODY
from trio_sandbox.relay.messages import MAX_MESSAGE
from trio_sandbox.vm.command import TRANSLATION_CACHE_MIB
from trio_sandbox.vm.console import TAIL_SIZE

DOCS = Path(__file__).parents[2] / "docs"
GIB, MIB, KIB = 1 << 30, 1 << 20, 1 << 10


def test_every_part_of_the_benchmarks_is_described() -> None:
    page = (DOCS / "benchmarks.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(PARTS)


def test_the_bounds_of_the_security_model() -> None:
    page = (DOCS / "security.md").read_text()
    for sentence in (
        f"{limits.MAX_TOTAL_BYTES // GIB} GiB in all, {limits.MAX_FILE_BYTES // GIB} GiB a file",
        f"{limits.MAX_DEPTH} folders deep, {limits.MAX_LAYERS} layers, {limits.MAX_METADATA_BYTES // MIB} MiB of names",
        f"frames of at most {MAX_BODY // KIB} KiB and messages of at most {MAX_MESSAGE // MIB} MiB",
        f"the emulator's translated code has {TRANSLATION_CACHE_MIB} MiB",
        f"The console keeps {TAIL_SIZE // KIB} KiB in memory",
    ):
        assert sentence in page, sentence
    assert limits.MAX_ENTRIES == 1_000_000
