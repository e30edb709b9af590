"""`trio-sandbox setup`: bring everything that is missing, step by step, and remember when nothing is.

Every step looks first and works only where something is missing, so set-up can be interrupted and repeated at any
point.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import click

from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.home import Home
from trio_sandbox.host import packages, stamp

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.option("--yes", is_flag=True, help="Install missing system packages without asking.")
def setup(yes: bool) -> int:
    """Make this machine ready: system packages, guest kernel, initramfs, default image, acceleration.

    What is missing is listed before it is installed, through sudo when you are not root. Safe to interrupt and to
    repeat.
    """
    home = Home.default()
    if stamp.holds(home.root):
        click.echo(f"Ready: everything is in {home.root}.")
        return 0
    steps = Steps()
    with steps.step("system packages") as step:
        installed = _install_packages(yes=yes)
        step.result = f"installed {', '.join(need.name for need in installed)}" if installed else "all there"

    import trio

    trio.run(_prepare, home, steps)
    click.echo(f"Ready after {steps.elapsed():.1f} s. See `trio-sandbox doctor`.")
    return 0


@attrs.define(eq=False)
class Step:
    """One step under way. `result` is what its last line says; `note` tells of a new piece of work in it."""

    name: str
    note: Callable[[str], None]
    result: str = "done"


@attrs.define(eq=False)
class Steps:
    """Tells a person which step is under way and how long each took."""

    started: float = attrs.Factory(time.monotonic)
    say: Callable[[str], None] = click.echo

    def elapsed(self) -> float:
        """Seconds since the first step could begin."""
        return time.monotonic() - self.started

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Announce a step and, when it succeeded, its result and its time."""
        began = time.monotonic()
        self.say(f"{name} …")
        step = Step(name, lambda text: self.say(f"  {name}: {text}"))
        yield step
        self.say(f"{name}: {step.result} ({time.monotonic() - began:.1f} s)")


def _install_packages(*, yes: bool) -> list[packages.Requirement]:
    needed = [need for need in packages.requirements() if not need.build_only]
    try:
        return packages.ensure(needed, say=click.echo, confirm=lambda question: yes or _asked(question))
    except packages.PackagesError as error:
        names = ", ".join(need.name for need in error.missing)
        raise HostNotReadyError("system packages", f"missing: {names}", str(error)) from error


def _asked(question: str) -> bool:
    if not sys.stdin.isatty():
        raise packages.PackagesError("nobody is there to ask; run `trio-sandbox setup --yes`", ())
    return click.confirm(question, default=True)


def stages(note: Callable[[str], None]) -> Callable[[str, int, int | None], None]:
    """Progress for those who report (stage, done, total): a note at each new stage."""
    last = ""

    def progress(stage: str, done: int, total: int | None) -> None:
        nonlocal last
        if stage != last:
            last = stage
            note(stage)

    return progress


async def _first_sandbox(home: Home) -> str:
    """Boot the default image: proves that it works, and leaves the warm template that later sandboxes start from."""
    from trio_sandbox.sandbox import open_sandbox

    for _ in range(2):
        async with open_sandbox(f"setup-{os.getpid()}", image="local/base", home=home) as sandbox:
            took = sandbox.timings["ready"]
            await sandbox.exec("true")
    return f"the next ones start in about {took * 1e3:.0f} ms"


async def _prepare(home: Home, steps: Steps) -> None:
    """The steps after the packages, then the stamp.

    Cancellation: what was finished stays, what was not leaves nothing.
    """
    from trio_sandbox.binaries import agent_path, host_program_path
    from trio_sandbox.files import publish_bytes
    from trio_sandbox.host.acceleration import probe_acceleration
    from trio_sandbox.host.initramfs import build_initramfs
    from trio_sandbox.host.kernel import fetch_kernel, find_kernel
    from trio_sandbox.host.qemu import find_qemu
    from trio_sandbox.image.base import base_image_present, build_base_image
    from trio_sandbox.image.layout import INDEX_FILE
    from trio_sandbox.image.reference import local_image_folder

    with steps.step("kernel") as step:
        kernel = find_kernel(home) or await fetch_kernel(home, step.note)
        step.result = f"{kernel.release} from {kernel.package}"
    with steps.step("initramfs") as step:
        initramfs = await build_initramfs(kernel, home)
        step.result = f"{initramfs.stat().st_size / 1e6:.1f} MB"
    with steps.step("default image") as step:
        if not base_image_present(home):
            await build_base_image(home, progress=stages(step.note))
        step.result = "local/base"
    with steps.step("acceleration") as step:
        qemu = await find_qemu(home)
        acceleration = await probe_acceleration(kernel, initramfs, home, qemu=qemu)
        step.result = f"{acceleration.name}: {acceleration.reason}"
    with steps.step("first sandbox") as step:
        step.result = await _first_sandbox(home)
    runtime = (need for need in packages.requirements() if not need.build_only)
    programs = [found for need in runtime for name in need.programs if (found := packages.find_program(name))]
    relied_on: list[str | Path] = [
        *programs,
        kernel.image,
        kernel.modules / "modules.dep",
        initramfs,
        agent_path(),
        host_program_path(),
    ]
    relied_on.append(local_image_folder("base", home) / INDEX_FILE)
    publish_bytes(home.host / stamp.NAME, stamp.make(relied_on))
