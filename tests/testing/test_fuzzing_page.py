"""The code of docs/fuzzing.md, and of the example that goes with it, finds the bugs that they say, and shrinks them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fuzzing.md").read_text()
BLOCKS = re.findall(r"^```(python|text)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
STEPS = 2
"""Rules in the shrunk test case."""


def test_the_planted_bug_is_found_and_shrunk_to_what_the_page_shows() -> None:
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(BLOCKS[0][1], "docs/fuzzing.md", "exec"), names)
    how = settings(names["TestAdder"].settings, derandomize=True, database=None, print_blob=False)
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(names["AdderMachine"], settings=how)
    story = "\n".join(caught.value.__notes__)
    rules = [line for line in story.splitlines() if re.match(r"state\.(start|write|act|add_)", line)]
    assert len(rules) <= STEPS
    problem = str(caught.value).partition("\n")[0]  # pytest adds lines where it looks into the package's asserts
    assert f"AssertionError: {problem}\n{story}".splitlines() == BLOCKS[1][1].splitlines()


@pytest.mark.parametrize("block", [code for kind, code in BLOCKS[2:] if kind == "python"])
def test_another_block_of_the_page(block: str) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(block, "docs/fuzzing.md", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()


@pytest.mark.parametrize(("options", "code"), [([], 1), (["--fixed", "--examples", "30"], 0)])
def test_the_campaign_of_the_examples(options: list[str], code: int) -> None:
    argv = [sys.executable, str(ROOT / "examples" / "fuzz_campaign.py"), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    if code:
        script = next(line for line in done.stdout.splitlines() if "script=" in line)
        assert script.count("Start(") == 1 and script.count("(") <= 1 + 2 + 2, script
