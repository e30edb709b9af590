"""The digest of a sparse file: of its bytes, however they are stored."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sandbox.snapshot.content import GRANULE, digest_of, granules

PIECES = st.lists(st.tuples(st.integers(0, 6 * GRANULE), st.binary(max_size=20)), max_size=5)
SIZES = st.integers(0, 6 * GRANULE + 30)


@contextmanager
def stored(size: int, pieces: list[tuple[int, bytes]], *, holes: bool) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        if holes:
            file.truncate(size)
        else:
            file.write(bytes(size))
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
        file.truncate(size)
        file.flush()
        yield file.fileno()


@settings(deadline=None)
@given(SIZES, PIECES)
def test_holes_and_zeros_are_the_same(size: int, pieces: list[tuple[int, bytes]]) -> None:
    with stored(size, pieces, holes=True) as sparse, stored(size, pieces, holes=False) as whole:
        assert digest_of(sparse) == digest_of(whole)
        content = os.pread(whole, size, 0)
        found = bytearray(size)
        for index, data in granules(sparse):
            assert any(data)
            found[index * GRANULE : index * GRANULE + len(data)] = data
        assert bytes(found) == content


@settings(deadline=None)
@given(SIZES, PIECES, SIZES, PIECES)
def test_other_bytes_have_another_digest(
    size: int, pieces: list[tuple[int, bytes]], other_size: int, others: list[tuple[int, bytes]]
) -> None:
    with stored(size, pieces, holes=True) as one, stored(other_size, others, holes=True) as two:
        same = os.pread(one, size, 0) == os.pread(two, other_size, 0) and size == other_size
        assert (digest_of(one) == digest_of(two)) == same
