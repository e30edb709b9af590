"""The stub of a kernel: what QEMU looks at and no more."""

from __future__ import annotations

import pytest

from trio_sandbox.home import Home
from trio_sandbox.host.kernel import find_kernel
from trio_sandbox.vm.stub import HEADER_READ, MAGIC, MAGIC_AT, SETUP_SECTORS_AT, TAIL, kernel_stub


def image(sectors: int, size: int, magic: bytes = MAGIC) -> bytes:
    data = bytearray(size)
    data[SETUP_SECTORS_AT] = sectors
    data[MAGIC_AT : MAGIC_AT + 4] = magic
    return bytes(data)


@pytest.mark.parametrize(
    ("sectors", "length"), [(0, HEADER_READ + TAIL), (3, HEADER_READ + TAIL), (39, 40 * 512 + TAIL)]
)
def test_the_set_up_code_stays_and_the_kernel_goes(sectors: int, length: int) -> None:
    whole = image(sectors, 1_000_000)
    stub = kernel_stub(whole)
    assert stub is not None
    assert len(stub) == length
    assert whole.startswith(stub)


@pytest.mark.parametrize("other", [b"", b"MZ" * 5000, image(3, 1_000_000, b"HdrX"), image(39, 20_000)])
def test_anything_else_is_given_whole(other: bytes) -> None:
    assert kernel_stub(other) is None


def test_the_kernel_of_this_machine_has_one() -> None:
    kernel = find_kernel(Home.default())
    assert kernel is not None
    stub = kernel_stub(kernel.image.read_bytes())
    assert stub is not None
    assert len(stub) < 100_000
