"""A finding is remembered as long as what it depends on stays the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_sandbox.host.facts import recall, remember


def test_remembered_under_the_same_circumstances_only(tmp_path: Path) -> None:
    path = tmp_path / "fact.json"
    remember(path, {"cpu": "a", "qemu": ("b", 3)}, {"name": "tcg"})
    assert recall(path, {"cpu": "a", "qemu": ("b", 3)}) == {"name": "tcg"}
    assert recall(path, {"cpu": "a", "qemu": ("b", 4)}) is None
    assert recall(path, {"cpu": "a"}) is None
    assert path.stat().st_mode & 0o777 == 0o600


def test_replaced_by_a_newer_one(tmp_path: Path) -> None:
    path = tmp_path / "fact.json"
    for number in range(3):
        remember(path, {"n": number}, {"found": number})
    assert recall(path, {"n": 2}) == {"found": 2}
    assert [entry.name for entry in tmp_path.iterdir()] == ["fact.json"]


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"7", b'{"depends_on": {}}', b'{"depends_on": {}, "finding": 3}', b"\xff", b"[" * 60_000],
)
def test_damaged_ones_count_as_nothing_known(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fact.json"
    path.write_bytes(damage)
    assert recall(path, {}) is None
