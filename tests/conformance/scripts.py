"""What the suite runs: shell scripts for a real guest, and the same as functions for the simulated one."""

from __future__ import annotations

import signal

import trio

from trio_sandbox.testing import Main, Program, SimulatedGuest

SCRIPTS: dict[str, Main] = {}


def script(text: str, main: Main) -> str:
    SCRIPTS[text] = main
    return text


def make_guest() -> SimulatedGuest:
    """A guest that knows all scripts of the suite."""
    return SimulatedGuest(scripts=dict(SCRIPTS))


def exiting(code: int) -> str:
    async def main(program: Program) -> int:
        return code

    return script(f"exit {code}", main)


EXITS = {code: exiting(code) for code in (0, 1, 7, 126, 255)}


async def _both_streams(program: Program) -> None:
    await program.stdout.send("out\n")
    await program.stderr.send("err\n")


BOTH_STREAMS = script("echo out; echo err >&2", _both_streams)


async def _kills_itself(program: Program) -> None:
    await program.raise_signal(signal.SIGTERM)


KILLS_ITSELF = script("kill -TERM $$", _kills_itself)


async def _variables(program: Program) -> None:
    await program.stdout.send(f"{program.env.get('COLOUR', '')}-{program.env.get('SHAPE', '')}\n")


VARIABLES = script("echo $COLOUR-$SHAPE", _variables)


async def _identity(program: Program) -> None:
    await program.stdout.send(f"{program.uid}\n{program.gid}\n")


IDENTITY = script("id -u; id -g", _identity)


async def _open_files(program: Program) -> None:
    await program.stdout.send(f"{program.rlimits[7][0]}\n")


OPEN_FILES = script("ulimit -n", _open_files)


async def _traps(program: Program) -> int:
    program.trap(signal.SIGTERM)
    await program.stdout.send("ready\n")
    await program.next_signal()
    await program.stdout.send("caught\n")
    return 3


TRAPS_TERM = script("trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.1; done", _traps)


async def _ignores(program: Program) -> None:
    program.ignore(signal.SIGTERM)
    await program.stdout.send("ready\n")
    await trio.sleep_forever()


IGNORES_TERM = script("trap '' TERM; echo ready; while :; do sleep 0.1; done", _ignores)


async def _sleeps(program: Program) -> None:
    await program.sleep(1000)


async def _leaves_a_daemon(program: Program) -> None:
    program.spawn(_sleeps)
    await program.stdout.send("started\n")


LEAVES_A_DAEMON = script("sleep 1000 & echo started", _leaves_a_daemon)


async def _begins(program: Program) -> None:
    program.spawn(_sleeps)
    await program.stdout.send("begun\n")
    await program.sleep(1000)


BEGINS = script("echo begun; sleep 1000 & sleep 1000", _begins)


async def _closes_stdin(program: Program) -> None:
    await program.stdin.receive(1)
    program.stdin.close()
    await program.stdout.send("closed\n")
    await trio.sleep_forever()


CLOSES_STDIN = script("head -c 1 > /dev/null; exec <&-; echo closed; sleep 1000 < /dev/null", _closes_stdin)


async def _terminal_size(program: Program) -> None:
    assert program.terminal is not None
    await program.stdout.send(f"{program.terminal.rows} {program.terminal.cols}\n")
    await program.stdin.receive_line()
    await program.stdout.send(f"{program.terminal.rows} {program.terminal.cols}\n")


TERMINAL_SIZE = script("stty size; read line; stty size", _terminal_size)


async def _is_a_terminal(program: Program) -> None:
    await program.stdout.send("yes\n" if program.tty else "no\n")


IS_A_TERMINAL = script("if test -t 0 && test -t 1; then echo yes; else echo no; fi", _is_a_terminal)


async def _emits(program: Program) -> None:
    await program.emit("count", {"n": 1})
    await program.emit("other", None)
    await program.emit("count", {"n": 2})


EMITS = script(
    "msb-event emit count '{\"n\": 1}'; msb-event emit other null; msb-event emit count '{\"n\": 2}'", _emits
)


async def _listens(program: Program) -> None:
    listener = program.listen("order")
    await program.stdout.send("listening\n")
    name, payload = await anext(listener)
    await program.stdout.send(f"{name} {payload}\n")


LISTENS = script(
    'msb-event listen order | while read name json; do echo "$name $json"; break; done & echo listening; wait', _listens
)
