"""What the fixtures of `plugin.py` make: sandboxes for one test, which are gone when it is over.

Works on any event loop that the handles work on, and owns no task. Each sandbox has a process of its own, attached and
ephemeral: when pytest is gone, however it ended, the sandbox goes too, and nothing of it stays.
"""

from __future__ import annotations

import itertools
import os
import queue
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from trio_sandbox.client.ownership import Ownership
from trio_sandbox.client.remote import RemoteControl
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import SandboxError
from trio_sandbox.home import Home
from trio_sandbox.testing.evidence import Evidence

FIXED = ("name", "home", "detached", "replace", "replace_with_timeout", "ephemeral")
"""Arguments of `Sandbox.create` that are not the test's: its sandboxes are new, and go with it."""

MAX_SLUG = 80
"""Characters of a test's name in the names of its sandboxes, which have at most 128 bytes."""


@attrs.define(eq=False)
class Workshop:
    """What all tests of this process share. token: tells this process's sandboxes from those of all others."""

    home: Home
    worker: str
    token: str = attrs.Factory(lambda: os.urandom(4).hex())
    _held: dict[Ownership, None] = attrs.Factory(dict)
    _numbers: itertools.count[int] = attrs.Factory(lambda: itertools.count(1))

    def name(self, test: str) -> str:
        """A name that no other sandbox has: of the test, the worker, and this process."""
        slug = re.sub(r"[^A-Za-z0-9]+", "-", test).strip("-")[:MAX_SLUG].strip("-") or "test"
        return f"{slug}-{self.worker}-{self.token}-{next(self._numbers)}"

    async def create(self, test: str, options: Mapping[str, Any]) -> Sandbox:
        """A sandbox for a test. Raises and is cancelled as `Sandbox.create`."""
        name = self.name(test)
        if problems := [f"{key}: a sandbox of a fixture has its own" for key in FIXED if key in options]:
            others = {key: value for key, value in options.items() if key not in FIXED}
            SandboxConfig.from_options(name, others, problems)  # raises, with whatever else is wrong
        sandbox = await Sandbox.create(name, home=self.home, ephemeral=True, **options)
        if (ownership := owned(sandbox)) is not None:
            self._held[ownership] = None
        return sandbox

    async def end(self, sandbox: Sandbox) -> None:
        """Kill a sandbox and forget it. Cancellation: it is done all the same."""
        ownership = owned(sandbox)
        await sandbox.__aexit__(None, None, None)
        if ownership is not None:
            self._held.pop(ownership, None)

    def sweep(self) -> None:
        """The end of the test run: end whatever a fixture did not come to end, as after Ctrl-C. Sync, and bounded."""
        held = list(self._held)
        self._held.clear()
        for ownership in held:
            if ownership.is_held:
                ownership.discard()  # all of them first: they end side by side
        for ownership in held:
            if ownership.is_held:
                ownership.ended_at_exit()
        _stop_idle_threads()

    def warm(self, image: object, several: list[dict[str, Any]]) -> None:
        """Have a template made for each of `several` sets of options, which those that they lack image take `image`.

        It is what the first sandbox of a kind does. Blocks. What fails here is left to the test that needs it.
        """
        thread = threading.Thread(target=_warmed, args=(self, image, several), name="warm templates")
        thread.start()  # of its own, since this one may be inside the run of an event loop
        thread.join()


def _stop_idle_threads() -> None:
    """Let the process end: anyio's worker threads on asyncio end with the loop's root task, which an interrupted test
    leaves unfinished, and one that waits for work then keeps the interpreter from its end for ever.
    """
    for thread in threading.enumerate():
        if type(thread).__module__ == "anyio._backends._asyncio" and type(thread).__name__ == "WorkerThread":
            with suppress(queue.Full):  # it has been told already
                thread.stop()  # type: ignore[attr-defined]  # anyio's own


def owned(sandbox: Sandbox) -> Ownership | None:
    """What makes the handle the owner of its sandbox."""
    control = sandbox._control
    return control.ownership if isinstance(control, RemoteControl) else None


def _warmed(workshop: Workshop, image: object, several: list[dict[str, Any]]) -> None:
    import trio

    async def warm() -> None:
        for options in several:
            with suppress(SandboxError, ValueError, TypeError):
                sandbox = await workshop.create("warm", {"image": image, **options})
                await workshop.end(sandbox)

    trio.run(warm)


class SandboxFactory:
    """Makes sandboxes for one test: `sb = await sandbox_factory(memory=256)`. All are gone when the test is over.

    options: what the sandboxes have where a call does not say otherwise.
    """

    def __init__(self, workshop: Workshop, test: str, options: Mapping[str, Any], evidence: list[Evidence]) -> None:
        self._workshop = workshop
        self._test = test
        self._options = dict(options)
        self._evidence = evidence
        self._made: list[tuple[Sandbox, Evidence]] = []

    async def __call__(self, **options: Any) -> Sandbox:
        """One more sandbox, ready. options: as for `Sandbox.create`; the name is made from the test's.

        It may be stopped or killed, and left by `async with`, before the test is over; one that is let go with
        `detach()` is the caller's. Several calls may run at once. Raises and is cancelled as `Sandbox.create`.
        """
        sandbox = await self._workshop.create(self._test, {**self._options, **options})
        evidence = Evidence.of(await sandbox.name, _logs_of(sandbox), lambda: sandbox.console)
        self._made.append((sandbox, evidence))
        self._evidence.append(evidence)
        return sandbox

    async def aclose(self) -> None:
        """Kill and forget all, and keep what a report may have to show. Cancellation: it is done all the same."""
        failures: list[Exception] = []
        made, self._made = self._made, []
        for sandbox, evidence in made:
            evidence.keep()
            if (ownership := owned(sandbox)) is not None and ownership.is_held:
                ownership.discard()  # all of them first: they end side by side
        for sandbox, _ in made:
            try:
                await self._workshop.end(sandbox)
            except Exception as error:
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExceptionGroup("sandboxes that could not be ended", failures)


def _logs_of(sandbox: Sandbox) -> Path | None:
    try:
        return sandbox._control.find_logs()
    except SandboxError:  # it has ended already
        return None
