"""The programs that every simulated guest has: a few of those that any image has, as far as tests need them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_sandbox.testing.inodes import FileError

if TYPE_CHECKING:
    from trio_sandbox.testing.program import Main, Program


async def cat(program: Program) -> int:
    """Standard input, or the files that are named."""
    for path in program.argv[1:]:
        try:
            await program.stdout.send(program.files.read(program.path(path)))
        except FileError as error:
            await program.stderr.send(f"cat: {path}: {error}\n")
            return 1
    if len(program.argv) == 1:
        async for piece in program.stdin:
            await program.stdout.send(piece)
    return 0


async def echo(program: Program) -> int:
    """Its arguments, with blanks between them."""
    await program.stdout.send(" ".join(program.argv[1:]) + "\n")
    return 0


async def env(program: Program) -> int:
    """Its environment."""
    await program.stdout.send("".join(f"{name}={value}\n" for name, value in program.env.items()))
    return 0


async def false(program: Program) -> int:
    return 1


async def pwd(program: Program) -> int:
    """Its working directory."""
    await program.stdout.send(f"{program.cwd}\n")
    return 0


async def sleep(program: Program) -> int:
    """So many seconds of the guest's time."""
    await program.sleep(float(program.argv[1]))
    return 0


async def true(program: Program) -> int:
    return 0


async def yes(program: Program) -> int:
    """Lines without end."""
    line = (" ".join(program.argv[1:]) or "y").encode() + b"\n"
    while True:  # every `send` is a checkpoint
        await program.stdout.send(line * (8192 // len(line)))


BUILT_IN: dict[str, Main] = {main.__name__: main for main in (cat, echo, env, false, pwd, sleep, true, yes)}
