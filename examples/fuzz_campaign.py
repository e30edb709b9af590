"""A fuzz campaign against a small protocol server.

    python examples/fuzz_campaign.py [--examples 300] [--seed 1] [--fixed]

The server is a shop's till: `sell NAME` and `refund NAME` are answered with the number of those sold, `total` with the
number of all. It runs in a simulated guest, so a campaign of hundreds of clients takes seconds; several of them talk to
servers of their own, leave, come back, and are cancelled, while frames are late and out of order. The server has a bug,
which is found and shrunk to the few steps that matter; `--fixed` runs the campaign against one without it.

Exit code 1: something was found, and printed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Awaitable, Callable

import trio
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_sandbox.testing import Faults, Program, SimulatedGuest
from trio_sandbox.testing.actions import Action
from trio_sandbox.testing.backends import SimulatedBackend
from trio_sandbox.testing.model import ProgramModel
from trio_sandbox.testing.play import play
from trio_sandbox.testing.strategies import client_scripts, harmless_faults

Server = Callable[[Program], Awaitable[None]]


def server(*, fixed: bool) -> Server:
    async def till(program: Program) -> None:
        sold: Counter[bytes] = Counter()
        total = 0
        while line := await program.stdin.receive_line():
            verb, _, name = line.strip().partition(b" ")
            if verb == b"sell":
                sold[name] += 1
                total += 1
            elif verb == b"refund" and (sold[name] or not fixed):
                sold[name] = max(0, sold[name] - 1)
                total -= 1  # the bug: what was never sold is given back, too
            await program.stdout.send(f"{total if verb == b'total' else sold[name]}\n")

    return till


def reply(stdin: bytes) -> bytes:
    """What the answers must be, said in another way: no running total."""
    sold: Counter[bytes] = Counter()
    answers = b""
    for line in stdin.split(b"\n")[:-1]:
        verb, _, name = line.strip().partition(b" ")
        sold[name] = max(0, sold[name] + {b"sell": 1, b"refund": -1}.get(verb, 0))
        answers += b"%d\n" % (sum(sold.values()) if verb == b"total" else sold[name])
    return answers


TILL = ProgramModel.replying("till", reply=reply)
LINES = st.sampled_from([b"total\n", b"sell a\n", b"sell b\n", b"refund a\n", b"refund b\n", b"sell a\ntotal\n"])


def campaign(examples: int, first: int, *, fixed: bool) -> AssertionError | None:
    """What was found, shrunk, if anything."""

    def make_guest() -> SimulatedGuest:
        guest = SimulatedGuest()
        guest.program("till")(server(fixed=fixed))
        return guest

    @seed(first)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(script=client_scripts([TILL], LINES), faults=harmless_faults())
    def clients_get_right_answers(script: tuple[Action, ...], faults: Faults) -> None:
        trio.run(play, SimulatedBackend(make_guest), script, faults, clock=MockClock(autojump_threshold=0))

    try:
        clients_get_right_answers()
    except AssertionError as error:
        return error
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz a small protocol server.")
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fixed", action="store_true", help="a server without the bug")
    options = parser.parse_args()
    found = campaign(options.examples, options.seed, fixed=options.fixed)
    if found is None:
        print(f"{options.examples} scripts were played, and every answer was right.")
        return 0
    print(found, *getattr(found, "__notes__", ()), sep="\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
