"""A code interpreter for an agent: what a model wrote runs in a machine of its own, and cannot flood the agent.

One sandbox is one conversation: files stay from call to call. Each call has a deadline, a bounded answer, and gives the
files that it wrote.

    $ python examples/code_interpreter.py
    >>> print(sum(range(101)))
    5050
    ...
"""

from __future__ import annotations

import attrs
import trio

from trio_sandbox import ExecTimeoutError, FilesystemError, Rlimit, Sandbox, capture, open_sandbox

FOLDER = "/home/agent"
KEPT = 4000
"""Bytes of output that a model is shown of the beginning, and of the end."""
MOST_FILES, LARGEST_FILE = 20, 1 << 20
LIMITS = [Rlimit.nproc(64), Rlimit.fsize(64 << 20)]


@attrs.frozen
class Answer:
    """What a model gets. files: what the program wrote, by name; left_out: how many were too many, or too large."""

    text: str
    success: bool
    files: dict[str, bytes] = attrs.Factory(dict)
    left_out: int = 0


async def prepare(sandbox: Sandbox) -> None:
    """Give the programs a folder. They are nobody's, so that they find everything else as it was."""
    await sandbox.fs.mkdir(FOLDER)
    await sandbox.fs.chown(FOLDER, "nobody")


async def run_code(sandbox: Sandbox, code: str, timeout: float = 30.0) -> Answer:
    """Run Python code. Cancelling this kills the program, with all that it started."""
    before = await changes(sandbox)
    try:
        async with await sandbox.exec_stream(
            "python3", ["-"], stdin=code, cwd=FOLDER, user="nobody", timeout=timeout, rlimits=LIMITS
        ) as program:
            output = await capture(program, head=KEPT, tail=KEPT)
    except ExecTimeoutError as error:
        said = (error.stdout + error.stderr).decode(errors="replace")
        return Answer(f"{said}\nstopped: it did not end within {timeout:g} s", success=False)
    files, left_out = await new_files(sandbox, before)
    return Answer(output.stdout.text() + output.stderr.text(), output.success, files, left_out)


async def changes(sandbox: Sandbox) -> dict[str, int]:
    """When each file in the folder was last written. Of links nothing is known: a program could point them anywhere."""
    async with sandbox.fs.iterdir(FOLDER) as entries:
        return {entry.path: entry.metadata.modified_ns async for entry in entries if entry.kind == "file"}


async def new_files(sandbox: Sandbox, before: dict[str, int]) -> tuple[dict[str, bytes], int]:
    """Files written since, and how many more there are than anybody wants: programs choose that, not we."""
    files: dict[str, bytes] = {}
    left_out = 0
    for path, modified in (await changes(sandbox)).items():
        if before.get(path) == modified:
            continue
        if len(files) == MOST_FILES:
            left_out += 1
            continue
        try:
            data = await sandbox.fs.read(path, length=LARGEST_FILE + 1, user="nobody")
        except FilesystemError:  # gone meanwhile
            continue
        if len(data) > LARGEST_FILE:
            left_out += 1
        else:
            files[path.rpartition("/")[2]] = data
    return files, left_out


async def main() -> None:
    """What a model might ask for."""
    programs = {
        "print(sum(range(101)))": 30.0,
        "open('even.txt', 'w').write(' '.join(str(n) for n in range(0, 50, 2)))": 30.0,
        "print(open('even.txt').read().split()[-1])": 30.0,
        "while True: print('spam' * 1000)": 1.0,
        "open('/etc/passwd', 'w')": 30.0,
    }
    async with open_sandbox("interpreter", image="local/base") as sandbox:
        await prepare(sandbox)
        for code, timeout in programs.items():
            answer = await run_code(sandbox, code, timeout)
            print(f">>> {code}", *filter(None, [answer.text.strip()[-200:]]), sep="\n")
            for name, data in answer.files.items():
                print(f"[{name}] {data.decode(errors='replace')}")


if __name__ == "__main__":
    trio.run(main)
