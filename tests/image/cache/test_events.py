"""What is told of an image on its way, and in which order: for any layers, whatever of them is here already."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.image.cache.remotes import NAME, Events, Registry, found
from tests.image.images import Item, TestImage, layer_tar, make_image
from trio_sandbox.config import PullPolicy
from trio_sandbox.home import Home
from trio_sandbox.image.cache import pull
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.cache.download import download_layers, missing_layers
from trio_sandbox.image.cache.leases import leased
from trio_sandbox.pull_event import EVENT_TYPES, PullEvent


@attrs.frozen
class Case:
    """Layers by number, some of them several times; which are here, and how the others come."""

    layers: tuple[int, ...]
    here: frozenset[int]
    begun: frozenset[int]
    piece: int
    pause: float

    def image(self) -> TestImage:
        return make_image([layer_tar([Item(f"file-{number}", bytes([number]) * 3000)]) for number in self.layers])

    def prepared(self, home: Home) -> TestImage:
        """The image, with a cache that has what is here."""
        image, blobs = self.image(), BlobCache(home)
        for number, layer in zip(self.layers, found(image).layers, strict=True):
            data = image.blobs[layer.digest]
            if number in self.here:
                blobs.path(layer.digest).write_bytes(data)
            elif number in self.begun:
                blobs.part(layer.digest).write_bytes(data[:2000])
        return image


numbers = st.integers(0, 5)
cases = st.builds(
    Case,
    layers=st.lists(numbers, min_size=1, max_size=7).map(tuple),
    here=st.frozensets(numbers),
    begun=st.frozensets(numbers),
    piece=st.sampled_from([500, 2000, 10_000]),
    pause=st.sampled_from([0.0, 0.03, 0.2]),
)


def check_downloads(events: Sequence[PullEvent], image: TestImage, missing: dict[str, int]) -> None:
    """Of each layer that was not here: how far it is, more each time; that it is here; that it is verified."""
    for digest, index in missing.items():
        size = len(image.blobs[digest])
        told = [event for event in events if event.digest == digest]
        assert {event.layer_index for event in told} == {index}
        assert [event.event_type for event in told[-3:]] == [
            *("layer_download_progress", "layer_download_complete", "layer_download_verifying"),
        ]
        progress = told[:-2]
        assert {event.event_type for event in progress} == {"layer_download_progress"}
        amounts = [event.downloaded_bytes for event in progress]
        assert amounts == sorted(set(amounts), key=lambda amount: amount or 0)
        assert amounts[-1] == size == told[-2].downloaded_bytes
        assert {event.total_bytes for event in progress} == {size}
    assert {event.digest for event in events if event.event_type.startswith("layer_download")} <= {*missing}


def missing_of(case: Case, image: TestImage) -> dict[str, int]:
    found_: dict[str, int] = {}
    for index, (number, layer) in enumerate(zip(case.layers, found(image).layers, strict=True)):
        if number not in case.here:
            found_.setdefault(layer.digest, index)
    return found_


@given(cases)
@settings(max_examples=60, deadline=None)
def test_downloads(case: Case) -> None:
    events = Events()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        image = case.prepared(home)
        registry = Registry(image, case.piece, case.pause)
        layers, blobs = found(image).layers, BlobCache(home)
        arguments = (layers, missing_layers(layers, blobs), registry.fetch, blobs, events)
        trio.run(download_layers, *arguments, clock=MockClock(autojump_threshold=0))
    check_downloads(events.all, image, missing_of(case, image))
    if case.pause == 0.2:  # longer than between two reports: every piece is told of
        for digest in missing_of(case, image):
            told = [event for event in events.all if event.digest == digest]
            assert len(told) - 2 >= registry.served[digest] // case.piece


FIELDS = {
    "resolving": {"reference"},
    "resolved": {"reference", "manifest_digest", "layer_count", "total_download_bytes"},
    "layer_download_progress": {"layer_index", "digest", "downloaded_bytes", "total_bytes"},
    "layer_download_complete": {"layer_index", "digest", "downloaded_bytes"},
    "layer_download_verifying": {"layer_index", "digest"},
    "layer_materialize_started": {"layer_index", "diff_id"},
    "layer_materialize_progress": {"layer_index", "bytes_read", "total_bytes"},
    "layer_materialize_writing": {"layer_index"},
    "layer_materialize_complete": {"layer_index", "diff_id"},
    "stitch_merging_trees": {"layer_count"},
    "stitch_complete": set(),
    "complete": {"reference", "layer_count"},
}
"""Every event that is told here, with its fields."""


def test_every_event_is_documented() -> None:
    assert set(FIELDS) | {"stitch_writing_fsmeta", "stitch_writing_vmdk"} == set(EVENT_TYPES)


@given(cases)
@settings(max_examples=15, deadline=None)
def test_the_whole_way(case: Case) -> None:
    events = Events()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        image = case.prepared(home)
        registry = Registry(image, case.piece, case.pause / 10)
        trio.run(_prepare, home, registry, events)
        check_whole(events.all, case, image)
        again = Events()
        trio.run(_prepare, home, registry, again)
        assert again.types() == ["resolving", "resolved", "complete"]


async def _prepare(home: Home, registry: Registry, events: Events) -> None:
    with leased(home) as lease:
        obtaining = pull.prepare_pulled(
            NAME, home, lease, policy=PullPolicy.IF_MISSING, on_pull=events, remote=lambda: registry
        )
        await obtaining


def check_whole(events: Sequence[PullEvent], case: Case, image: TestImage) -> None:
    types = [event.event_type for event in events]
    for event in events:
        assert set(event.to_plain()) == {"event_type"} | FIELDS[event.event_type]
    assert types[:2] == ["resolving", "resolved"]
    assert types[-2:] == ["stitch_complete", "complete"]
    once = {"resolving", "resolved", "stitch_merging_trees", "stitch_complete", "complete"}
    assert all(types.count(name) == 1 for name in once)
    missing = missing_of(case, image)
    assert events[1].total_download_bytes == sum(len(image.blobs[digest]) for digest in missing)
    check_downloads(events, image, missing)
    merging = types.index("stitch_merging_trees")
    for index in missing.values():  # a layer is merged when it is here, while others may be on their way
        of_layer = [event.event_type for event in events if event.layer_index == index]
        assert of_layer.index("layer_download_verifying") < of_layer.index("layer_materialize_started")
    assert not any(name.startswith("layer_materialize") for name in types[:merging])
    for index, layer in enumerate(found(image).image.layers):
        merged = [event for event in events if event.event_type.startswith("layer_materialize")]
        check_layer([event for event in merged if event.layer_index == index], layer.diff_id, layer.size)


def check_layer(told: Sequence[PullEvent], diff_id: str, size: Any) -> None:
    first, *progress, writing, complete = told
    assert (first.event_type, first.diff_id) == ("layer_materialize_started", diff_id)
    assert {event.event_type for event in progress} == {"layer_materialize_progress"}
    amounts = [event.bytes_read or 0 for event in progress]
    assert amounts == sorted(set(amounts))
    assert amounts[-1] == size
    assert {event.total_bytes for event in progress} == {size}
    assert writing.event_type == "layer_materialize_writing"
    assert (complete.event_type, complete.diff_id) == ("layer_materialize_complete", diff_id)
