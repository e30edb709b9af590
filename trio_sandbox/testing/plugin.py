"""pytest's plugin: the fixtures `sandbox`, `sandbox_factory` and `sandbox_image`, and the marker `sandbox`.

pytest imports this whenever it starts, in whatever project, so it imports nothing of the runtime until a test asks for
a sandbox. The fixtures are plain async generators: pytest-trio runs them for tests marked `trio`, anyio's plugin for
those marked `anyio`, on either of its backends.

When the test is over is not when its report is made: under pytest-trio the fixtures end within the test, before its
report; under anyio's plugin after it. So the logs of a sandbox are read before it goes, whatever became of the test,
and for a report that comes earlier they are read once more.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from trio_sandbox import Sandbox
    from trio_sandbox.image_source import ImageSource
    from trio_sandbox.testing.evidence import Evidence
    from trio_sandbox.testing.fresh import SandboxFactory, Workshop

DEFAULT_IMAGE = "local/base"
FIXTURES = ("sandbox", "sandbox_factory")
TEMPLATE_OPTIONS = ("image", "memory", "cpus")
"""Options of the marker on which the machine's warm template depends."""
SETTLE = 0.05
"""Seconds that the writer of a sandbox's logs is given before they are read for a report."""

_WORKSHOP: pytest.StashKey[Workshop] = pytest.StashKey()
_WARMED: pytest.StashKey[list[dict[str, Any]]] = pytest.StashKey()
_EVIDENCE: pytest.StashKey[list[Evidence]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("trio_sandbox", "sandboxes")
    group.addoption("--sandbox-image", metavar="IMAGE", help=f"image of the tests' sandboxes ({DEFAULT_IMAGE})")
    group.addoption("--sandbox-home", metavar="FOLDER", help="data folder of the tests' sandboxes")
    parser.addini("sandbox_image", "image of the tests' sandboxes", default=DEFAULT_IMAGE)
    parser.addini("sandbox_home", "data folder of the tests' sandboxes ($TRIO_SANDBOX_HOME or ~/.trio-sandbox)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "sandbox(**options): options of the sandboxes that this test's fixtures make, as for Sandbox.create"
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which kinds of sandboxes the chosen tests will ask for."""
    kinds: list[dict[str, Any]] = []
    for item in session.items:
        if not any(_is_ours(item, name) for name in FIXTURES):
            continue
        options = _options_of(item)
        kind = {key: options[key] for key in TEMPLATE_OPTIONS if key in options}
        if options.get("warm", True) and kind not in kinds:
            kinds.append(kind)
    session.config.stash[_WARMED] = kinds


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse what cannot work in a sentence that says what to do."""
    wanted = [name for name in FIXTURES if _is_ours(item, name)]
    if not wanted or not isinstance(item, pytest.Function):
        return
    for mark in item.iter_markers("sandbox"):
        if mark.args:
            pytest.fail(f"@pytest.mark.sandbox takes options by name, not {mark.args[0]!r}", pytrace=False)
    function = getattr(getattr(item.obj, "hypothesis", None), "inner_test", item.function)
    if not iscoroutinefunction(function):
        pytest.fail(
            f"{item.name} asks for the fixture {wanted[0]!r} and is not async: make it `async def` and mark it "
            "`anyio` (or `trio`, with pytest-trio)",
            pytrace=False,
        )


def _is_ours(item: pytest.Item, name: str) -> bool:
    """Whether a test asks for our fixture of this name, and not for one that its project has under the same name."""
    info = getattr(item, "_fixtureinfo", None)
    definitions: Sequence[Any] = info.name2fixturedefs.get(name, ()) if info is not None else ()
    return bool(definitions) and definitions[-1].func.__module__ == __name__


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its sandboxes printed."""
    report = yield
    evidence = item.stash.get(_EVIDENCE, [])
    if report.failed and evidence:
        time.sleep(SETTLE)
        for one in evidence:
            report.sections.extend(one.sections())
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    workshop = config.stash.get(_WORKSHOP, None)
    if workshop is not None:
        workshop.sweep()


def _options_of(item: pytest.Item) -> dict[str, Any]:
    """What the markers say: those nearer to the test over those further away."""
    options: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers("sandbox"))):
        options.update(mark.kwargs)
    return options


@pytest.fixture(scope="session")
def sandbox_image(pytestconfig: pytest.Config) -> str | ImageSource:
    """The image of the sandboxes. From --sandbox-image, else the ini option sandbox_image; to be overridden at will."""
    given = pytestconfig.getoption("--sandbox-image") or pytestconfig.getini("sandbox_image")
    return str(given)


@pytest.fixture(scope="session")
def _sandbox_workshop(pytestconfig: pytest.Config, sandbox_image: str | ImageSource) -> Iterator[Workshop]:
    """Whatever the first sandbox of each kind has to wait for, done once: fork server, templates."""
    from pathlib import Path

    from trio_sandbox.home import Home
    from trio_sandbox.testing.fresh import Workshop

    given = pytestconfig.getoption("--sandbox-home") or pytestconfig.getini("sandbox_home")
    home = Home(Path(given).expanduser().absolute()) if given else Home.default()
    worker = getattr(pytestconfig, "workerinput", {}).get("workerid", "main")
    workshop = pytestconfig.stash[_WORKSHOP] = Workshop(home, worker)
    workshop.warm(sandbox_image, pytestconfig.stash.get(_WARMED, [{}]))
    yield workshop
    workshop.sweep()


@pytest.fixture
async def sandbox_factory(
    request: pytest.FixtureRequest, _sandbox_workshop: Workshop, sandbox_image: str | ImageSource
) -> AsyncIterator[SandboxFactory]:
    """Makes sandboxes: `sb = await sandbox_factory(memory=256)`. All are gone when the test is over."""
    factory = _factory(request, _sandbox_workshop, sandbox_image)
    try:
        yield factory
    finally:
        await factory.aclose()  # noqa: ASYNC102 - each step is shielded and bounded


@pytest.fixture
async def sandbox(
    request: pytest.FixtureRequest, _sandbox_workshop: Workshop, sandbox_image: str | ImageSource
) -> AsyncIterator[Sandbox]:
    """A fresh sandbox, for this test alone."""
    factory = _factory(request, _sandbox_workshop, sandbox_image)
    try:
        yield await factory()
    finally:
        await factory.aclose()  # noqa: ASYNC102 - the same


def _factory(request: pytest.FixtureRequest, workshop: Workshop, image: str | ImageSource) -> SandboxFactory:
    from trio_sandbox.testing.fresh import SandboxFactory

    node = request.node
    evidence = node.stash.setdefault(_EVIDENCE, [])
    return SandboxFactory(workshop, node.name, {"image": image, **_options_of(node)}, evidence)
