"""The fixtures of the pytest plugin, in runs of pytest of their own: each is what a user's test suite would be."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.conftest import first_use, own_temporary_folder
from tests.real.traces import Traces
from tests.testing.pytest_runs import run
from trio_sandbox import Home
from trio_sandbox.state.places import store_of

__all__ = ["first_use", "own_temporary_folder"]

END_TIMEOUT = 10.0


@pytest.fixture
def nothing_left(own_temporary_folder: None) -> Iterator[None]:
    """No sandbox, process, socket or file of the data folder is left when the run is over."""
    home = Home.default()
    before, known = Traces.take(home), names()
    yield
    assert names() == known
    deadline = time.monotonic() + END_TIMEOUT
    while Traces.take(home) != before and time.monotonic() < deadline:
        time.sleep(0.02)
    Traces.take(home).assert_equal(before)


def names() -> set[str]:
    return {row.name for row in store_of(Home.default()).all()}


GOOD = """
    import pytest

    async def use(sandbox):
        assert (await sandbox.exec("cat", stdin="hi")).stdout_text == "hi"
        assert not await sandbox.fs.exists("/root/mine")
        await sandbox.fs.write("/root/mine", b"")
        print("NAME", await sandbox.name)

    @pytest.mark.anyio
    async def test_one(sandbox):
        await use(sandbox)

    @pytest.mark.trio
    async def test_two(sandbox):
        await use(sandbox)

    @pytest.mark.anyio
    async def test_several(sandbox, sandbox_factory):
        async with await sandbox_factory() as second:
            await use(second)
        third = await sandbox_factory(env={"COLOUR": "red"})
        await use(third)
        assert (await third.shell("echo $COLOUR")).stdout_text == "red\\n"
        await third.kill()
        await use(sandbox)

    @pytest.mark.trio
    async def test_several_on_trio(sandbox_factory):
        import trio

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                @nursery.start_soon
                async def _():
                    await use(await sandbox_factory())

    @pytest.mark.sandbox(env={"COLOUR": "red", "SIZE": "big"})
    class TestMarked:
        @pytest.mark.anyio
        @pytest.mark.sandbox(env={"COLOUR": "blue"}, workdir="/tmp")
        async def test_marked(self, sandbox):
            assert (await sandbox.shell("echo $COLOUR $SIZE; pwd")).stdout_text == "blue\\n/tmp\\n"

    @pytest.mark.anyio
    async def test_that_needs_none():
        pass
"""


@pytest.mark.vm
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_the_fixtures_work_under_both_plugins_and_on_both_backends(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, "-rP", *arguments, test_good=GOOD)
    assert (done.status, done.passed, done.failed, done.errors) == (0, 10, 0, 0), done.text
    used = re.findall(r"^NAME (\S+)$", done.text, re.MULTILINE)
    assert len(used) == len(set(used)) == 12
    workers = {name.split("-")[-3] for name in used}
    assert workers == ({"gw0", "gw1"} if arguments else {"main"})


BAD = """
    import pytest

    async def fail(sandbox):
        await sandbox.shell("echo seen; printf '\\033[2Jheard\\n' >&2; echo murmur > /dev/kmsg")
        assert False, "as it is meant to"

    async def crash(sandbox):
        await sandbox.shell("echo last words; echo c > /proc/sysrq-trigger")

    @pytest.mark.anyio
    async def test_bad(sandbox):
        await fail(sandbox)

    @pytest.mark.trio
    async def test_bad_on_trio(sandbox):
        await fail(sandbox)

    @pytest.mark.anyio
    async def test_crash(sandbox):
        await crash(sandbox)

    @pytest.mark.trio
    async def test_crash_on_trio(sandbox):
        await crash(sandbox)

    @pytest.mark.anyio
    async def test_of_several(sandbox_factory):
        (await sandbox_factory()), (await sandbox_factory())
        assert False
"""


@pytest.mark.vm
@pytest.mark.usefixtures("nothing_left")
def test_a_failed_test_shows_what_its_sandboxes_said(tmp_path: Path) -> None:
    done = run(tmp_path, "--tb=line", test_bad=BAD)
    assert (done.status, done.failed, done.errors) == (1, 8, 0), done.text
    shown = sections(done.text)
    bad = [text for title, text in shown if title.startswith("test-bad") and title.endswith(": log")]
    assert len(bad) == 3
    for text in bad:
        assert "stdout | seen\n" in text
        assert "stderr | \\x1b[2Jheard\n" in text
    crashed = [text for title, text in shown if title.startswith("test-crash") and title.endswith(": log")]
    assert len(crashed) == 3
    assert all("stdout | last words\n" in text for text in crashed)
    consoles = [text for title, text in shown if title.startswith("test-crash") and title.endswith(": console")]
    assert len(consoles) == 3
    assert all("Kernel panic" in text for text in consoles)
    assert len([title for title, _ in shown if "of-several" in title and title.endswith(": log")]) == 4


def sections(text: str) -> list[tuple[str, str]]:
    """The sections of the sandboxes, in a report: titles and texts."""
    pieces = re.split(r"^-+ sandbox (\S+: \w+) -+$", text, flags=re.MULTILINE)[1:]
    return list(zip(pieces[::2], pieces[1::2], strict=True))


WRONG = """
    import pytest
    from trio_sandbox import InvalidConfigError

    def test_sync(sandbox):
        pass

    @pytest.mark.anyio
    @pytest.mark.sandbox("python:3.12")
    async def test_positional(sandbox):
        pass

    @pytest.mark.trio
    @pytest.mark.sandbox(memory=-1, colour="red", detached=True)
    async def test_fixed(sandbox):
        pass

    @pytest.mark.trio
    async def test_options(sandbox_factory):
        with pytest.raises(InvalidConfigError) as caught:
            await sandbox_factory(memory=-1, home="/tmp")
        assert len(caught.value.problems) == 2
"""


@pytest.mark.vm
@pytest.mark.usefixtures("nothing_left")
def test_what_cannot_work_is_refused_with_a_remedy(tmp_path: Path) -> None:
    done = run(tmp_path, test_wrong=WRONG)
    assert (done.status, done.passed) == (1, 1), done.text
    assert (done.failed, done.errors) == (1, 3), done.text  # pytest-trio counts what happens in a fixture as the test's
    assert "test_sync asks for the fixture 'sandbox' and is not async: make it `async def`" in done.text
    assert "takes options by name, not 'python:3.12'" in done.text
    assert "detached: a sandbox of a fixture has its own" in done.text
    assert "unknown option 'colour'" in done.text


IMAGE = """
    import pytest

    @pytest.fixture(scope="session")
    def sandbox_image(sandbox_image):
        return sandbox_image.replace("no-such", "base")
"""
CHOSEN = """
    import pytest

    @pytest.mark.anyio
    async def test_chosen(sandbox):
        print("READY", await sandbox.name)
"""


@pytest.mark.vm
def test_the_image_and_the_data_folder_can_be_chosen(tmp_path: Path) -> None:
    ini = "[pytest]\nsandbox_image = local/no-such\n"
    done = run(tmp_path, "-k", "trio", conftest=IMAGE, test_chosen=CHOSEN, ini=ini)
    assert done.passed == 1, done.text
    done = run(tmp_path, "-k", "trio", conftest="", test_chosen=CHOSEN, ini=ini)
    assert (done.errors, "local/no-such" in done.text) == (1, True), done.text
    done = run(tmp_path, "-k", "trio", "--sandbox-image=local/base")
    assert done.passed == 1, done.text
    done = run(tmp_path, "-k", "trio", "--sandbox-image=local/base", f"--sandbox-home={tmp_path / 'empty'}")
    assert (done.errors, "HostNotReadyError" in done.text) == (1, True), done.text


OWN = """
    import pytest

    @pytest.fixture
    def sandbox():
        return "of sand"

    @pytest.mark.sandbox("anything")
    def test_own(sandbox, pytestconfig):
        assert sandbox == "of sand"
"""


def test_a_projects_own_fixture_of_that_name_is_its_own(tmp_path: Path) -> None:
    done = run(tmp_path, test_own=OWN)
    assert (done.status, done.passed) == (0, 1), done.text


def test_pytest_starts_without_the_runtime() -> None:
    code = (
        "import sys, trio_sandbox.testing.plugin\n"
        "heavy = {'trio', 'anyio', 'asyncio', 'attrs', 'attr', 'msgpack', 'trio_sandbox.errors'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


PAGE = Path(__file__).parents[2] / "docs" / "pytest.md"


@pytest.mark.vm
def test_the_code_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    known = names()  # and no more: a template for its memory stays
    tests, conftest = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    done = run(tmp_path, "-k", "trio", test_page=tests, conftest=conftest)
    assert (done.status, done.passed) == (0, 3), done.text
    assert names() == known
