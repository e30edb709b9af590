"""The code of docs/testing.md does what the page says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_of_the_page(number: int) -> None:
    names: dict[str, Any] = {}
    exec(compile(BLOCKS[number], f"{PAGE.name} block {number}", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        if inspect.iscoroutinefunction(test):
            trio.run(test, clock=MockClock(autojump_threshold=0))
        else:
            test()
