"""The memory of another process: what it has changed of a file, read and written from outside."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from trio_sandbox.errors import HostNotReadyError, RemoteProtocolError
from trio_sandbox.vm import guest_memory
from trio_sandbox.vm.guest_memory import PAGE, Pages, changed, guest_address

PAGES = 4096
SIZE = PAGES * PAGE

MAPPER = """
import ctypes, mmap, os, sys
path, size = sys.argv[1], int(sys.argv[2])
flags = mmap.MAP_PRIVATE | (mmap.MAP_ANONYMOUS if path == "-" else 0)
file = -1 if path == "-" else os.open(path, os.O_RDWR)
memory = mmap.mmap(file, size, flags=flags)
memory.madvise(15)  # MADV_NOHUGEPAGE
for word in sys.argv[3:]:
    page, _, byte = word.partition("=")
    memory[int(page) * 4096] = int(byte)
sum(memory[::4096]) if path != "-" else 0  # reading a page of the file changes nothing
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
for line in sys.stdin:
    print(memory[int(line) * 4096], flush=True)
"""


class Mapped:
    """A process that has mapped a file, and tells what it sees."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin and process.stdout
        self._in, self._out, self.pid = process.stdin, process.stdout, process.pid
        self.address = int(self._out.readline())

    def __getitem__(self, page: int) -> int:
        print(page, file=self._in, flush=True)
        return int(self._out.readline())


@contextmanager
def mapped(path: Path | str, **bytes_of_pages: int) -> Iterator[Mapped]:
    words = [f"{page[1:]}={byte}" for page, byte in bytes_of_pages.items()]
    argv = [sys.executable, "-c", MAPPER, str(path), str(SIZE), *words]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Mapped(process)
        finally:
            process.kill()


@pytest.fixture
def pages() -> Iterator[Pages]:
    made = Pages.with_room(PAGE)
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Ones in the first half, a hole in the other."""
    path = tmp_path / "memory"
    path.write_bytes(b"\1" * (SIZE // 2))
    os.truncate(path, SIZE)
    return path


def test_what_was_written_is_what_has_changed(file: Path) -> None:
    with mapped(file, p0=7, p1=7, p100=0, p4095=9) as one:
        assert changed(one.pid, one.address, SIZE) == [(0, 2 * PAGE), (100 * PAGE, PAGE), (4095 * PAGE, PAGE)]


def test_a_copy_has_what_was_changed_and_no_more(file: Path, pages: Pages) -> None:
    scattered = {f"p{page}": page % 251 for page in range(3, 3000, 2)}  # more pieces than one call moves
    with mapped(file, **scattered) as one, mapped(file) as other:
        pages = pages.read_from(one.pid, one.address, changed(one.pid, one.address, SIZE))
        assert pages.count == len(scattered)
        assert pages.size == len(scattered) * PAGE
        pages.write_to(other.pid, other.address, SIZE, os.open(file, os.O_RDONLY))
        assert changed(other.pid, other.address, SIZE) == pages.extents()
        assert [other[page] for page in (3, 4, 2047, 2999, 4000)] == [3, 1, 2047 % 251, 2999 % 251, 0]


@pytest.mark.parametrize("behind", [True, False])
def test_what_the_other_had_written_itself_is_taken_back(file: Path, pages: Pages, behind: bool) -> None:
    path = file if behind else "-"
    with mapped(path, p5=5) as one, mapped(path, p5=6, p6=6, p3000=6) as other:
        pages = pages.read_from(one.pid, one.address, changed(one.pid, one.address, SIZE))
        pages.write_to(other.pid, other.address, SIZE, os.open(file, os.O_RDONLY) if behind else None)
        assert [other[page] for page in (5, 6, 3000)] == [5, 1 if behind else 0, 0]


def test_nothing_has_changed(file: Path, pages: Pages) -> None:
    with mapped(file) as one, mapped(file, p1=3) as other:
        pages = pages.read_from(one.pid, one.address, changed(one.pid, one.address, SIZE))
        assert (pages.size, pages.count, pages.extents()) == (0, 0, [])
        pages.write_to(other.pid, other.address, SIZE, os.open(file, os.O_RDONLY))
        assert other[1] == 1


def test_pages_that_are_not_whole_or_of_a_larger_machine_are_refused(file: Path, pages: Pages) -> None:
    with mapped(file, p1=1, p4000=1) as one:
        pages = pages.read_from(one.pid, one.address, changed(one.pid, one.address, SIZE))
        with pytest.raises(RemoteProtocolError, match="larger"):
            pages.write_to(one.pid, one.address, SIZE // 2, None)
        os.truncate(pages.descriptor, pages.size + 20)
        with pytest.raises(RemoteProtocolError, match="not whole"):
            pages.extents()


def test_a_host_that_forbids_it_says_how_to_allow_it(monkeypatch: pytest.MonkeyPatch, file: Path, pages: Pages) -> None:
    def forbidden(*arguments: object) -> int:
        ctypes.set_errno(1)
        return -1

    monkeypatch.setattr(guest_memory, "_readv", forbidden)
    with mapped(file, p1=1) as one, pytest.raises(HostNotReadyError, match="ptrace_scope"):
        pages.read_from(one.pid, one.address, [(0, PAGE)])


async def _told(answer: object) -> int:
    class Monitor:
        async def execute(self, command: str, **arguments: object) -> object:
            await trio.lowlevel.checkpoint()
            return answer

    return await guest_address(Monitor())


def test_where_the_memory_is() -> None:
    assert trio.run(_told, "Host virtual address for 0x0 (memory) is 0x7f12ab000000\r\n") == 0x7F12AB000000
    answers: tuple[object, ...] = ("", "No memory is mapped at address 0x0", {"return": {}})
    for answer in answers:
        with pytest.raises(RemoteProtocolError):
            trio.run(_told, answer)
