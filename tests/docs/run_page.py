"""Run the blocks of one page in order, in one namespace and in the current folder:

    python -m tests.docs.run_page PAGE

A process of its own for each page, so that pages share nothing, and nothing of pytest is in the way. Ends with 0, or
with a traceback whose first line says where the block is.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import os
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio

import trio_sandbox
from tests.docs.blocks import RUN, Block, blocks, commands, is_conftest, is_test, looks_like, wants_sandbox
from tests.testing import pytest_runs
from trio_sandbox import Sandbox, open_sandbox

PROGRAMS = {"trio-sandbox": "-m trio_sandbox", "python": "", "python3": "", "pytest": "-m pytest"}
"""What commands find first on PATH, as words after this Python."""


class BlockFailed(Exception):
    """A block did not do what the page says."""


class Page:
    """What the blocks of a page have in common."""

    def __init__(self) -> None:
        self.folder = Path.cwd()
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.files: list[Block] = []
        self.tests = False

    def run(self, block: Block) -> None:
        """One block, or only a look at it where its comment says that it cannot run. Raises whatever goes wrong."""
        if block.file:
            (self.folder / block.file).write_text(block.code)
            self.files.append(block)
        elif block.reason:
            check(block)
        elif block.language != "python":
            self._shell(block)
        elif is_test_block(block):
            name = "conftest" if is_conftest(block.code) else f"test_line_{block.line}"
            (self.folder / f"{name}.py").write_text(block.code)
            self.tests = True
        else:
            self._python(block)

    def _python(self, block: Block) -> None:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        parts = [compile(code, block.where, "exec", flags) for code in (block.setup, block.code)]
        if any(part.co_flags & inspect.CO_COROUTINE for part in parts):
            trio.run(self._fragment, block, parts)
            return
        self.names["__builtins__"] = builtins
        for part in parts:
            exec(part, self.names)

    async def _fragment(self, block: Block, parts: list[Any]) -> None:
        """A part of an async function, of a program that begins with `from trio_sandbox import *`."""
        public = {name: getattr(trio_sandbox, name) for name in trio_sandbox.__all__}
        self.names["__builtins__"] = {**vars(builtins), **public}
        async with AsyncExitStack() as stack:
            self.names["stack"] = stack
            if wants_sandbox(f"{block.setup}\n{block.code}"):
                made = open_sandbox("docs", image="local/base")
                self.names["sandbox"] = await stack.enter_async_context(made)
            for part in parts:
                coroutine = eval(part, self.names)
                if coroutine is not None:
                    await coroutine

    def _shell(self, block: Block) -> None:
        if block.setup:
            self._command(block, block.setup)
        if block.language == "sh":
            self._command(block, block.code)
            return
        for command, shown in commands(block.code):
            output = self._command(block, command)
            if shown and not looks_like(shown, output):
                raise BlockFailed(f"{block.where}: `{command}` printed\n{output}\nand the page shows\n{shown}")

    def _command(self, block: Block, command: str) -> str:
        argv = ["bash", "-eu", "-o", "pipefail", "-c", command]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BlockFailed(f"{block.where}: `{command}` ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def finish(self, page: list[Block]) -> None:
        """Run the tests that the page has, and look for what was left."""
        shell = [block.code for block in page if block.language in ("sh", "console")]
        idle = [block.where for block in self.files if not any(block.file in code for code in shell)]
        if idle:
            raise BlockFailed(f"no command of the page uses the files of {', '.join(idle)}")
        if self.tests:
            argv = pytest_runs.command(self.folder, "-q")
            if subprocess.run(argv, env=pytest_runs.environment(), check=False).returncode:
                raise BlockFailed("the tests of the page fail")
        left = remove_sandboxes()
        if left:
            raise BlockFailed(f"the page leaves sandboxes: {', '.join(left)}")


def remove_sandboxes() -> list[str]:
    """All of the data folder. Their names."""
    names = [handle.name for handle in trio.run(Sandbox.list)]
    if names:
        subprocess.run([sys.executable, "-m", "trio_sandbox", "rm", "-f", *names], check=True)
    return names


def is_test_block(block: Block) -> bool:
    """Whether pytest runs it: a fragment, which has an await outside of any function, is no module."""
    try:
        compile(block.code, block.where, "exec")
    except SyntaxError:
        return False
    return is_test(block.code)


def check(block: Block) -> None:
    """That it is Python, or shell. Raises what is wrong with it."""
    if block.language == "python":
        compile(block.code, block.where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return
    lines = block.code if block.language == "sh" else "\n".join(command for command, _ in commands(block.code))
    subprocess.run(["bash", "-n", "-c", lines], check=True)


def put_programs_on_path(folder: Path) -> None:
    """The commands of this project, also where it is not installed."""
    folder.mkdir()
    for name, words in PROGRAMS.items():
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (folder / name).chmod(0o755)
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"


def main(name: str) -> None:
    """Run a page."""
    put_programs_on_path(Path.cwd() / ".bin")
    began = time.monotonic()
    found = blocks(name)
    page = Page()
    try:
        for block in found:
            if block.language in RUN or block.file:
                print(f"-- {block.where}, after {time.monotonic() - began:.1f} s", flush=True)
                page.run(block)
        page.finish(found)
    finally:
        remove_sandboxes()  # the next page is not to meet them


if __name__ == "__main__":
    main(sys.argv[1])
