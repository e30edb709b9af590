"""The code blocks of a page, and what its invisible comments say about them."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
RUN = ("python", "console", "sh")
_BLOCK = re.compile(  # a fence of four marks shows what is written, and is no block
    r"^````.*?^````$|"
    r"(?:^<!-- (?P<word>setup|not run)\b:?(?P<comment>.*?)-->\n\n?)?"
    r"^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_FILE = re.compile(r"# ([\w.-]+\.\w+)\n")


@attrs.frozen
class Block:
    """One block. line: of its fence. setup: code that runs before it; reason: why it does not run, "" if it does."""

    page: str
    line: int
    language: str
    code: str
    setup: str = ""
    reason: str = ""

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """The name of the file that it is, by its first line `# NAME`; "" for one that is none."""
        found = _FILE.match(self.code)
        return found[1] if found else ""


def blocks(page: str) -> list[Block]:
    """All blocks of a page, named relative to the project, in order."""
    return blocks_of(page, (ROOT / page).read_text())


def blocks_of(page: str, text: str) -> list[Block]:
    """The same of its text."""
    found = []
    for match in _BLOCK.finditer(text):
        if match["language"] is None:
            continue
        line = text.count("\n", 0, match.start("language")) + 1
        comment = (match["comment"] or "").strip()
        said = {"setup": comment} if match["word"] == "setup" else {"reason": " ".join(comment.split())}
        found.append(Block(page, line, match["language"], match["code"], **said))
    return found


def is_test(code: str) -> bool:
    """Whether it is a module of tests, or the fixtures of one."""
    functions = [part for part in ast.parse(code).body if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return any(part.name.startswith("test_") for part in functions) or is_conftest(code)


def is_conftest(code: str) -> bool:
    """Whether it has fixtures, and no tests."""
    functions = [part for part in ast.parse(code).body if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))]
    fixtures = [part for part in functions if any("pytest.fixture" in ast.unparse(by) for by in part.decorator_list)]
    return bool(fixtures) and not any(part.name.startswith("test_") for part in functions)


def wants_sandbox(code: str) -> bool:
    """Whether it uses `sandbox` without having made one."""
    tree = compile(code, "block", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(tree, ast.Module)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "sandbox"]
    made = [node.lineno for node in names if isinstance(node.ctx, ast.Store)]
    used = [node.lineno for node in names if isinstance(node.ctx, ast.Load)]
    return bool(used) and (not made or min(used) < min(made))


def commands(code: str) -> list[tuple[str, str]]:
    """The commands of a console block, without their `$ `, each with the output that the page shows."""
    found: list[tuple[str, str]] = []
    going_on = False
    for line in code.splitlines():
        if going_on or line.startswith("$ "):
            text = line if going_on else line.removeprefix("$ ")
            if going_on:
                text = f"{found.pop()[0]}\n{text}"
            found.append((text, ""))
            going_on = line.endswith("\\")
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
        else:
            raise ValueError(f"a console block begins with `$ `, not with {shlex.quote(line)}")
    return found


def looks_like(shown: str, output: str) -> bool:
    """Whether a command's output is what the page shows; `...` there stands for any text."""
    pattern = ".*".join(re.escape(part) for part in shown.rstrip().split("..."))
    return re.fullmatch(pattern, output.rstrip(), re.DOTALL) is not None
