"""Put the state diagram and the transitions into `docs/lifecycle.md`, from `lifecycle.TRANSITIONS`.

With `--print`, only show the page. A test checks that it is current.
"""

from __future__ import annotations

import sys
from pathlib import Path

from trio_sandbox.lifecycle import CRASHES, TERMINAL, TRANSITIONS, EndReason, State

PAGE = Path(__file__).parents[1] / "docs" / "lifecycle.md"
BEGIN = "<!-- made by scripts/lifecycle_diagram.py: begin -->\n"
END = "<!-- made by scripts/lifecycle_diagram.py: end -->\n"
AGAIN = ((State.STOPPED, "start"), (State.CRASHED, "start"))
"""What begins another run; within one, STOPPED and CRASHED are the end."""


def diagram() -> str:
    """The states as a Mermaid diagram. Inputs that lead from one state to the same other share an arrow."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (source, cause), target in TRANSITIONS.items():
        arrows.setdefault((source, target), []).append(cause.value)
    lines = ["stateDiagram-v2", f"    [*] --> {State.CREATING}: create"]
    lines += [f"    {source} --> {target}: {' / '.join(causes)}" for (source, target), causes in arrows.items()]
    lines += [f"    {state} --> {State.CREATING}: {cause}" for state, cause in AGAIN]
    lines += [f"    {state} --> [*]: remove" for state in sorted(TERMINAL)]
    return "```mermaid\n" + "\n".join(lines) + "\n```\n"


def table() -> str:
    """Every transition of one run."""
    rows = [f"| {source} | {cause.value} | {target} |" for (source, cause), target in TRANSITIONS.items()]
    return "\n".join(("| in | when | then |", "|---|---|---|", *rows)) + "\n"


def reasons() -> str:
    """Which reason makes which end."""
    asked = ", ".join(f"`{reason}`" for reason in EndReason if reason not in CRASHES)
    crashed = ", ".join(f"`{reason}`" for reason in EndReason if reason in CRASHES)
    return f"Reasons of a `stopped` one: {asked}. Of a `crashed` one: {crashed}.\n"


def page(text: str) -> str:
    """The page with what is made here brought up to date."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{diagram()}\n{table()}\n{reasons()}\n{END}{tail}"


if __name__ == "__main__":
    made = page(PAGE.read_text())
    if "--print" in sys.argv[1:]:
        print(made, end="")
    else:
        PAGE.write_text(made)
