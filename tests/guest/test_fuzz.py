"""Whatever a host says, the agent answers it as the wire promises, goes on or ends in order, and leaves nothing behind.

`make test` says the same 100,000 frames every time; `make fuzz` says others for FUZZ_SECONDS. A failure names the seed
of its round: `make fuzz FUZZ_SEED=…` begins with it.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import attrs
import msgpack
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.guest.agent_client import CONFIGURE, encode, exec_map
from tests.guest.chamber import Chamber
from tests.guest.frame_strategies import BAD_HEADERS, Script, Step, boots, conversations
from tests.guest.fuzz_agent import FuzzedAgent

CONFIGURED = msgpack.packb(CONFIGURE)
CAT = msgpack.packb(exec_map(["cat"], stdin=True, env=["PATH=/bin"]))
PINGS = encode("PING", b"not heard any more") * 3

FRAMES = 100_000
BOOTS = 100
ROUND = 50  # scripts with one seed
LIFE = 300  # scripts that one agent hears at most
SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
NEWEST_MAX = 0xFFFF_0000  # session ids only grow: an agent that was told of a later one has no room left


@pytest.fixture(scope="module")
def chamber(programs: Path) -> Iterator[Chamber]:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        chamber = Chamber.build(Path(name) / "root", programs / "agent")
        if problem := chamber.problem():
            (pytest.fail if SECONDS else pytest.skip)(f"no namespaces of one's own: {problem}")
        yield chamber


@attrs.define
class Fuzzer:
    """Says scripts to one agent after the other."""

    chamber: Chamber
    log: Path
    frames: int = 0
    scripts: int = 0
    agents: int = 0
    agent: FuzzedAgent | None = None

    def boot(self, script: Script) -> None:
        """One script as the first words that an agent hears."""
        self.close()
        with self._talking() as agent:
            agent.say(script.render(0), script.cuts)
            agent.settle(gently=False)
            agent.finish()
        self.close()

    def converse(self, script: Script) -> None:
        """One script. The agent stays for the next one, if it is still there."""
        with self._talking() as agent:
            if not agent.serves:
                agent.configure()
            agent.say(script.render(agent.oracle.newest), script.cuts, script.eager)
            if script.hangs_up:
                agent.hang_up()
                self.close()
                return
            agent.settle(script.gently)
            if not agent.serves or agent.scripts > LIFE or agent.oracle.newest > NEWEST_MAX:
                agent.finish()
                self.close()

    @contextmanager
    def _talking(self) -> Iterator[FuzzedAgent]:
        if self.agent is None:
            self.agents += 1
            self.agent = FuzzedAgent.launch(self.chamber, self.log)
        agent, before = self.agent, self.agent.oracle.frames
        try:
            yield agent
        except BaseException as error:
            error.add_note(f"It had heard {agent.scripts} scripts. {agent.complaints()}")
            self.close()
            raise
        self.scripts += 1
        self.frames += agent.oracle.frames - before

    def close(self) -> None:
        if self.agent:
            self.agent.close()
            self.agent = None


@pytest.fixture
def fuzzer(chamber: Chamber, tmp_path: Path) -> Iterator[Fuzzer]:
    fuzzer = Fuzzer(chamber, tmp_path / "agent.log")
    yield fuzzer
    fuzzer.close()


def rounds(say: Callable[[Script], None], scripts: st.SearchStrategy[Script]) -> Iterator[None]:
    """Each `next` says a round of scripts. The same ones in every run, unless FUZZ_SECONDS asks for others."""
    first = 0 if not SECONDS else int(os.environ.get("FUZZ_SEED") or random.SystemRandom().getrandbits(32))
    if SECONDS:
        print(f"\nThe first seed is {first}.")
    how = settings(
        max_examples=ROUND,
        deadline=None,
        database=DirectoryBasedExampleDatabase(".hypothesis/examples") if SECONDS else None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    for number in count(first):

        @seed(number)
        @how
        @given(scripts)
        def say_scripts(script: Script) -> None:
            say(script)

        try:
            say_scripts()
        except BaseException as error:
            error.add_note(f"The seed of this round was {number}.")
            raise
        yield


def test_conversations(fuzzer: Fuzzer) -> None:
    began = time.monotonic()
    for _ in rounds(fuzzer.converse, conversations()):
        spent = time.monotonic() - began
        if fuzzer.frames >= FRAMES and spent >= SECONDS:
            break
    rate = fuzzer.frames / spent
    print(f"\n{fuzzer.frames} frames in {fuzzer.scripts} scripts to {fuzzer.agents} agents, {rate:.0f} frames/s")
    assert fuzzer.frames >= FRAMES


@pytest.mark.parametrize("header", BAD_HEADERS)
def test_bad_headers(fuzzer: Fuzzer, header: bytes) -> None:
    ping, configure, serving = Step("PING", b"x"), Step("CONFIGURE", CONFIGURED), Step("EXEC", CAT, back=-1)
    for steps in ([], [ping], [configure], [configure, serving, ping]):
        fuzzer.boot(Script(steps, header + PINGS))


def test_boots(fuzzer: Fuzzer) -> None:
    began = time.monotonic()
    for _ in rounds(fuzzer.boot, boots()):
        if fuzzer.scripts >= BOOTS and time.monotonic() - began >= SECONDS / 10:
            break
