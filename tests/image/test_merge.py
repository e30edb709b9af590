"""Merging layers: whiteouts, opaque folders, links, metadata, and what hostile layers meet."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import attrs
import pytest

from tests.image.images import Item, contents, folder, hardlink, layer_tar, listing, merge, symlink
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.limits import Limits


def merged(tmp_path: Path, *layers: list[Item], limits: Limits | None = None) -> bytes:
    return merge(tmp_path, [layer_tar(layer) for layer in layers], limits=limits or Limits())


def test_upper_file_wins(tmp_path: Path) -> None:
    out = merged(tmp_path, [Item("a", b"lower"), Item("b", b"kept")], [Item("a", b"upper")])
    assert contents(out) == {"a": b"upper", "b": b"kept"}


def test_whiteout_removes_a_lower_file_and_a_lower_folder(tmp_path: Path) -> None:
    lower = [Item("a"), folder("d"), Item("d/x"), Item("d/y/z")]
    assert sorted(listing(merged(tmp_path, lower, [Item(".wh.a"), Item(".wh.d")]))) == ["."]


def test_whiteout_spares_what_its_own_layer_brings_in_either_order(tmp_path: Path) -> None:
    lower = [folder("d"), Item("d/old")]
    for upper in ([Item(".wh.d"), folder("d"), Item("d/new")], [folder("d"), Item("d/new"), Item(".wh.d")]):
        assert sorted(listing(merged(tmp_path, lower, upper))) == [".", "d", "d/new"]


def test_opaque_folder_hides_what_was_below_it(tmp_path: Path) -> None:
    lower = [folder("d", mode=0o700), Item("d/old"), Item("d/deep/old")]
    upper = [folder("d", mode=0o750), Item("d/.wh..wh..opq"), Item("d/new")]
    out = listing(merged(tmp_path, lower, upper))
    assert sorted(out) == [".", "d", "d/new"]
    assert out["d"].mode == 0o750


def test_a_third_layer_may_bring_back_what_the_second_removed(tmp_path: Path) -> None:
    out = merged(tmp_path, [folder("d"), Item("d/a", b"1")], [Item(".wh.d")], [folder("d"), Item("d/b", b"3")])
    assert contents(out) == {"d/b": b"3"}


def test_whiteouts_of_nothing_do_nothing(tmp_path: Path) -> None:
    out = merged(tmp_path, [Item("f")], [Item(".wh.x"), Item("no/.wh.x"), Item("no/.wh..wh..opq"), Item("f/.wh.x")])
    assert sorted(listing(out)) == [".", "f"]


def test_folder_over_folder_keeps_the_children_and_takes_the_metadata(tmp_path: Path) -> None:
    out = listing(merged(tmp_path, [folder("d", uid=1), Item("d/a")], [folder("d", uid=2, mode=0o1777, mtime=9)]))
    assert (out["d"].uid, out["d"].mode, out["d"].mtime) == (2, 0o1777, 9)
    assert "d/a" in out


@pytest.mark.parametrize("over", [Item("d", b"file"), symlink("d", "x"), Item("d", kind=tarfile.FIFOTYPE)])
def test_anything_but_a_folder_replaces_a_folder_with_its_children(tmp_path: Path, over: Item) -> None:
    out = listing(merged(tmp_path, [folder("d"), Item("d/a")], [over]))
    assert sorted(out) == [".", "d"]
    assert out["d"].type == over.kind


def test_a_folder_replaces_a_symlink_and_does_not_follow_it(tmp_path: Path) -> None:
    out = listing(merged(tmp_path, [folder("usr"), symlink("lib", "usr")], [Item("lib/a")]))
    assert out["lib"].isdir()
    assert "usr/a" not in out


def test_missing_parents_are_made(tmp_path: Path) -> None:
    out = listing(merged(tmp_path, [Item("a/b/c")]))
    assert (out["a"].mode, out["a/b"].mode) == (0o755, 0o755)


def test_root_metadata_is_kept(tmp_path: Path) -> None:
    out = listing(merged(tmp_path, [folder("./", mode=0o711, uid=5)]))
    assert (out["."].mode, out["."].uid) == (0o711, 5)


def test_metadata_devices_and_xattrs_are_kept(tmp_path: Path) -> None:
    items = [
        Item("f", b"x", mode=0o4755, uid=3_000_000_000, gid=65_534, mtime=1_700_000_000, xattrs=(("user.k", "v é"),)),
        Item("c", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
        Item("b", kind=tarfile.BLKTYPE, device=(8, 300)),
        Item("p", kind=tarfile.FIFOTYPE),
        folder("d", xattrs=(("trusted.x", "1"),)),
    ]
    out = listing(merged(tmp_path, items))
    file = out["f"]
    assert (file.mode, file.uid, file.gid, file.mtime) == (0o4755, 3_000_000_000, 65_534, 1_700_000_000)
    assert file.pax_headers["SCHILY.xattr.user.k"] == "v é"
    assert out["d"].pax_headers["SCHILY.xattr.trusted.x"] == "1"
    assert (out["c"].type, out["c"].devmajor, out["c"].devminor) == (tarfile.CHRTYPE, 1, 3)
    assert (out["b"].type, out["b"].devmajor, out["b"].devminor) == (tarfile.BLKTYPE, 8, 300)
    assert out["p"].isfifo()


def test_xattrs_that_would_steer_the_guests_overlay_are_dropped(tmp_path: Path) -> None:
    out = listing(
        merged(tmp_path, [folder("d", xattrs=(("trusted.overlay.opaque", "y"), ("system.posix_acl_access", "1")))])
    )
    assert not out["d"].pax_headers


def test_very_long_names_and_targets(tmp_path: Path) -> None:
    name = "/".join(["n" * 250] * 16)
    out = merged(tmp_path, [Item(name, b"deep"), symlink("s", "t" * 3000), hardlink("h", name)])
    assert contents(out) == {name: b"deep", "h": b"deep"}
    assert listing(out)["s"].linkname == "t" * 3000


# --- hard links


def test_hard_links_stay_one_file(tmp_path: Path) -> None:
    out = listing(merged(tmp_path, [Item("a", b"x", mode=0o600), hardlink("b", "a"), hardlink("c", "./b")]))
    assert sorted(entry.islnk() for entry in out.values()) == [False, False, True, True]
    assert contents(merged(tmp_path, [Item("a", b"x"), hardlink("b", "a")])) == {"a": b"x", "b": b"x"}


@pytest.mark.parametrize(
    "upper",
    [
        [Item("a", b"new")],
        [Item(".wh.a")],
        [folder("a")],
        [Item(".wh.a"), Item("a", b"new")],
    ],
)
def test_a_link_keeps_its_content_when_an_upper_layer_replaces_or_deletes_the_target(
    tmp_path: Path, upper: list[Item]
) -> None:
    out = contents(merged(tmp_path, [Item("a", b"old"), hardlink("b", "a"), hardlink("c", "a")], upper))
    assert out["b"] == out["c"] == b"old"
    assert out.get("a") in (None, b"new")


@pytest.mark.parametrize(
    "upper",
    [
        [hardlink("b", "a")],
        [hardlink("b", "a"), Item(".wh.a")],
        [Item(".wh.a"), hardlink("b", "a")],
        [hardlink("b", "a"), Item("a", b"new")],
        [Item(".wh..wh..opq"), hardlink("b", "a")],
    ],
)
def test_a_link_in_an_upper_layer_to_a_lower_file_gets_the_content_it_had(tmp_path: Path, upper: list[Item]) -> None:
    out = contents(merged(tmp_path, [Item("a", b"old", mode=0o640)], upper))
    assert out["b"] == b"old"
    if any(item.name == "a" for item in upper):
        assert out["a"] == b"new"


def test_a_link_to_a_file_that_its_own_layer_replaced_before_gets_the_new_content(tmp_path: Path) -> None:
    out = contents(merged(tmp_path, [Item("a", b"old")], [Item("a", b"new"), hardlink("b", "a")]))
    assert out == {"a": b"new", "b": b"new"}


def test_a_link_that_survives_three_layers(tmp_path: Path) -> None:
    out = contents(merged(tmp_path, [Item("a", b"1")], [hardlink("b", "a")], [Item(".wh.a")], [Item("c", b"4")]))
    assert out == {"b": b"1", "c": b"4"}


def test_links_to_symlinks_and_devices(tmp_path: Path) -> None:
    out = listing(merged(tmp_path, [symlink("s", "x"), hardlink("t", "s")]))
    assert {out["s"].type, out["t"].type} == {tarfile.SYMTYPE, tarfile.LNKTYPE}


@pytest.mark.parametrize("target", ["nothing", "d", "../..", ""])
def test_a_link_to_no_file_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(ImageFault, match="no file"):
        merged(tmp_path, [folder("d"), hardlink("b", target)])


# --- hostile layers


@pytest.mark.parametrize("name", ["/etc/x", "../../etc/x", "a/../../../etc/x", "./../etc//./x", "/../etc/x"])
def test_names_cannot_leave_the_root(tmp_path: Path, name: str) -> None:
    assert contents(merged(tmp_path, [Item(name, b"x")])) == {"etc/x": b"x"}


def test_a_symlink_of_the_image_is_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    out = listing(merged(tmp_path, [symlink("d", str(outside)), Item("d/x", b"x")]))
    assert out["d"].isdir()
    assert not outside.exists()


@pytest.mark.parametrize(
    ("limits", "layer"),
    [
        (Limits(entries=10), [Item(f"f{number}") for number in range(11)]),
        (Limits(entries=10), [Item("/".join("d" * 11))]),
        (Limits(depth=4), [Item("a/b/c/d/e")]),
        (Limits(path_bytes=40), [Item("a" * 30 + "/" + "b" * 30)]),
        (Limits(path_bytes=40), [symlink("s", "t" * 41)]),
        (Limits(file_bytes=1000), [Item("f", bytes(1001))]),
        (Limits(total_bytes=20_000), [Item(f"f{number}", bytes(6000)) for number in range(4)]),
        (Limits(metadata_bytes=1000), [Item("x" * 200 + str(number)) for number in range(6)]),
        (Limits(), [Item("n" * 256)]),
        (Limits(), [Item("f", xattrs=(("user.big", "v" * 65_537),))]),
        (Limits(), [Item("c", kind=tarfile.CHRTYPE, device=(5000, 1))]),
        (Limits(), [symlink("s", "")]),
        (Limits(), [Item(".")]),
        (Limits(), [Item(".wh.")]),
        (Limits(), [Item("a/.wh...")]),
    ],
)
def test_limits(tmp_path: Path, limits: Limits, layer: list[Item]) -> None:
    with pytest.raises(ImageFault):
        merged(tmp_path, [folder("a")], layer, limits=limits)


def test_a_bomb_is_stopped_while_it_streams(tmp_path: Path) -> None:
    bomb = layer_tar([Item("zeros", bytes(64 << 20))])
    with pytest.raises(ImageFault, match="more than"):
        merge(tmp_path, [bomb], compression="gzip", limits=Limits(total_bytes=1 << 20))


def test_a_bomb_after_the_end_of_the_archive_is_stopped_too(tmp_path: Path) -> None:
    with pytest.raises(ImageFault, match="limit"):
        merge(
            tmp_path, [layer_tar([Item("a")]) + bytes(64 << 20)], compression="gzip", limits=Limits(total_bytes=1 << 20)
        )


def test_a_sparse_file_counts_with_its_holes(tmp_path: Path) -> None:
    info = tarfile.TarInfo("s")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "s",
        "GNU.sparse.realsize": str(1 << 40),
    }
    sparse_map = b"0\n"
    info.size = 512
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(sparse_map.ljust(512, b"\0")))
    with pytest.raises(ImageFault, match="a file may have"):
        merge(tmp_path, [out.getvalue()])


def test_too_many_layers(tmp_path: Path) -> None:
    with pytest.raises(ImageFault, match="layers"):
        merged(tmp_path, [Item("a")], [Item("b")], limits=Limits(layers=1))


# --- the stream


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_layers_merge_like_plain_ones(tmp_path: Path, compression: str) -> None:
    layers = [
        layer_tar([folder("d"), Item("d/a", b"a" * 700_000), Item("b", b"b" * 3_000_000), hardlink("l", "b")]),
        layer_tar([Item("b", b"B" * 10), Item("d/c", bytes(2_000_000))]),
    ]
    assert merge(tmp_path, layers, compression=compression) == merge(tmp_path, layers)


def test_a_wrong_diff_id_and_a_wrong_blob_digest_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_tar([Item("a", b"x" * 5000)])
    real = "tests.image.images.Layer"
    for changes in ({"diff_id": "sha256:" + "0" * 64}, {"place": "sha256:" + "0" * 64}):
        for compression in ("none", "gzip"):
            from trio_sandbox.image.oci import Layer

            monkeypatch.setattr(real, lambda *args, changes=changes: attrs.evolve(Layer(*args), **changes))
            with pytest.raises(ImageFault, match="sha256:"):
                merge(tmp_path, [layer], compression=compression)


def test_the_same_layers_make_the_same_bytes(tmp_path: Path) -> None:
    layers = [
        [folder("b"), Item("b/x"), hardlink("c", "b/x"), hardlink("a", "c"), symlink("s", "t")],
        [folder("d"), Item("d/y"), hardlink("b/z", "b/x")],
    ]
    assert merged(tmp_path, *layers) == merged(tmp_path, *layers)
