"""`root`: operations that stay within a folder, whatever links lie in it; and `sync`."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.guest.agent_client import Client
from tests.guest.fs_client import FsOutcome, feed, fs, fs_outcome, fs_start, record

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="mounting and making devices need root")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a tree in it, and with links in the tree that lead out, as far as they say."""
    root = tmp_path / "root"
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc" / "motd").write_text("old\n")
    (root / "bin").symlink_to("/usr/bin")  # which is the root's
    (root / "out").symlink_to("../../outside")
    (root / "absolute").symlink_to(tmp_path / "outside")
    (root / "self").symlink_to("/proc/self/root")
    (root / "loop").symlink_to("loop")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("not yours\n")
    return root


def within(agent: Client, root: Path, op: str, path: str, stdin: bytes | None = None, **keys: Any) -> FsOutcome:
    return fs(agent, op, path, stdin, root=os.fsencode(root), **keys)


def test_a_file_is_made_with_the_folders_above_it(agent: Client, root: Path) -> None:
    assert within(agent, root, "write", "/a/b/c", b"new", mode=0o6750).count == 3
    made = root / "a" / "b" / "c"
    assert made.read_bytes() == b"new"
    assert stat.S_IMODE(made.stat().st_mode) == 0o6750
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (made.parent, made.parent.parent)] == [0o755, 0o755]
    within(agent, root, "write", "/plain", b"").check()
    assert stat.S_IMODE((root / "plain").stat().st_mode) == 0o644


def test_what_is_there_is_an_error_unless_it_may_be_replaced(agent: Client, root: Path) -> None:
    assert within(agent, root, "write", "/etc/motd", b"x").error == (errno.EEXIST, "/etc/motd")
    assert (root / "etc" / "motd").read_text() == "old\n"
    (root / "etc" / "motd").chmod(0o600)
    within(agent, root, "write", "/etc/motd", b"x", replace=True).check()
    assert (root / "etc" / "motd").read_text() == "x"
    assert stat.S_IMODE((root / "etc" / "motd").stat().st_mode) == 0o644  # nothing is kept of the old one
    for path in ("/etc", "/"):
        assert within(agent, root, "write", path, b"x", replace=True).error == (errno.EISDIR, path)
    assert within(agent, root, "write", "/etc", b"x").error == (errno.EEXIST, "/etc")


@pytest.mark.parametrize("link", ["out", "absolute", "self", "loop", "bin"])
def test_a_link_at_the_end_is_in_the_way_or_replaced_but_never_followed(agent: Client, root: Path, link: str) -> None:
    assert within(agent, root, "write", f"/{link}", b"x").error == (errno.EEXIST, f"/{link}")
    within(agent, root, "write", f"/{link}", b"x", replace=True).check()
    assert not (root / link).is_symlink()
    assert (root / link).read_bytes() == b"x"


def test_links_on_the_way_lead_within_the_root(agent: Client, root: Path, tmp_path: Path) -> None:
    within(agent, root, "write", "/bin/tool", b"x").check()
    assert (root / "usr" / "bin" / "tool").read_bytes() == b"x"
    within(agent, root, "write", "/bin/../../../up", b"x").check()  # ".." of /usr/bin, and the root's is the root
    assert (root / "up").read_bytes() == b"x"
    # What they point to is not in the root, so they point nowhere, and nothing is made in its stead.
    for link in ("out", "absolute"):
        assert within(agent, root, "write", f"/{link}/file", b"x", replace=True).error[0] == errno.ENOENT
        assert within(agent, root, "mkdir", f"/{link}/folder").error[0] == errno.ENOENT
        assert within(agent, root, "symlink", f"/{link}/link", to=b"x").error[0] == errno.ENOENT
        assert within(agent, root, "remove", f"/{link}/file").error[0] == errno.ENOENT
        assert within(agent, root, "remove_dir", f"/{link}/x", recursive=True).error[0] == errno.ENOENT
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["file"]
    assert (tmp_path / "outside" / "file").read_text() == "not yours\n"


def test_a_link_of_proc_is_not_followed_even_where_proc_is_in_the_root(agent: Client) -> None:
    """With the host's own "/" as the root: what is mounted is not entered either."""
    assert within(agent, Path("/"), "write", "/proc/self/cwd/file", b"x").error[0] in (errno.EXDEV, errno.ELOOP)
    assert within(agent, Path("/"), "write", "/dev/shm/trio-sandbox-test", b"x").error[0] == errno.EXDEV
    assert within(agent, Path(f"/proc/{agent.pid}"), "write", "/cwd/file", b"x").error[0] == errno.ELOOP


def test_append(agent: Client, root: Path) -> None:
    (root / "etc" / "motd").chmod(0o640)
    (root / "way").symlink_to("/etc/motd")
    within(agent, root, "write", "/etc/motd", b"new\n", append=True).check()
    within(agent, root, "write", "/way", b"newer\n", append=True).check()
    assert (root / "etc" / "motd").read_text() == "old\nnew\nnewer\n"
    assert stat.S_IMODE((root / "etc" / "motd").stat().st_mode) == 0o640
    assert (root / "way").is_symlink()


@pytest.mark.parametrize(
    ("path", "error"),
    [("/nothing", "ENOENT"), ("/etc", "EINVAL"), ("/fifo", "EINVAL"), ("/out/file", "ENOENT"), ("/loop", "ELOOP")],
)
def test_append_to_what_is_no_file(agent: Client, root: Path, path: str, error: str) -> None:
    os.mkfifo(root / "fifo")
    assert within(agent, root, "write", path, b"x", append=True).error == (getattr(errno, error), path)
    assert not (root / "nothing").exists()


@needs_root
def test_append_opens_no_device(agent: Client, root: Path) -> None:
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    assert within(agent, root, "write", "/null", b"x", append=True).error == (errno.EINVAL, "/null")


def test_mkdir(agent: Client, root: Path) -> None:
    within(agent, root, "mkdir", "/a/b", mode=0o2700).check()
    assert stat.S_IMODE((root / "a" / "b").stat().st_mode) == 0o2700
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o755
    within(agent, root, "mkdir", "/a/b", mode=0o777).check()
    assert stat.S_IMODE((root / "a" / "b").stat().st_mode) == 0o2700  # it stays as it is
    within(agent, root, "mkdir", "/bin").check()  # a link to a folder
    assert (root / "bin").is_symlink()
    for path in ("/etc/motd", "/out", "/loop"):
        assert within(agent, root, "mkdir", path).error == (errno.EEXIST, path)
    assert within(agent, root, "mkdir", "/etc/motd/x").error[0] == errno.ENOTDIR


def test_symlink(agent: Client, root: Path) -> None:
    within(agent, root, "symlink", "/new/link", to=b"/etc/../any text").check()
    assert os.readlink(root / "new" / "link") == "/etc/../any text"
    assert within(agent, root, "symlink", "/etc/motd", to=b"x").error == (errno.EEXIST, "/etc/motd")
    within(agent, root, "symlink", "/etc/motd", to=b"x", replace=True).check()
    within(agent, root, "symlink", "/bin", to=b"y", replace=True).check()
    assert (os.readlink(root / "etc" / "motd"), os.readlink(root / "bin")) == ("x", "y")
    assert within(agent, root, "symlink", "/etc", to=b"x", replace=True).error == (errno.EISDIR, "/etc")


def test_remove(agent: Client, root: Path, tmp_path: Path) -> None:
    within(agent, root, "remove", "/etc/motd").check()
    for link in ("out", "absolute", "bin"):
        within(agent, root, "remove", f"/{link}").check()
    assert within(agent, root, "remove", "/etc").error == (errno.EISDIR, "/etc")
    assert within(agent, root, "remove", "/nowhere/x").error == (errno.ENOENT, "/nowhere/x")
    assert not (root / "nowhere").exists()
    (root / "usr" / "link").symlink_to(tmp_path / "outside")
    assert within(agent, root, "remove_dir", "/usr", recursive=True).count == 3
    within(agent, root, "remove_dir", "/etc").check()
    assert sorted(os.listdir(root)) == ["loop", "self"]
    assert within(agent, root, "remove_dir", "/", recursive=True).error[0] == errno.EBUSY
    assert (tmp_path / "outside" / "file").exists()


TREE = record("", 0o40750) + record("file", 0o100644, b"new") + record("link", 0o120777, target=b"/anywhere")


def test_unpack_makes_a_new_folder(agent: Client, root: Path) -> None:
    assert within(agent, root, "unpack", "/srv/app", TREE).count == 3
    assert stat.S_IMODE((root / "srv" / "app").stat().st_mode) == 0o750
    assert within(agent, root, "unpack", "/srv/app", TREE).error == (errno.EEXIST, "/srv/app")
    assert within(agent, root, "unpack", "/etc/motd", TREE).error == (errno.EEXIST, "/etc/motd")
    assert within(agent, root, "unpack", "/out", TREE).error == (errno.EEXIST, "/out")


def test_unpack_fills_a_folder_that_is_there(agent: Client, root: Path, tmp_path: Path) -> None:
    (root / "etc" / "file").symlink_to(tmp_path / "outside" / "file")
    mode = (root / "etc").stat().st_mode
    assert within(agent, root, "unpack", "/etc", TREE, replace=True).count == 3
    assert (root / "etc" / "file").read_text() == "new"
    assert not (root / "etc" / "file").is_symlink()
    assert ((root / "etc").stat().st_mode, (root / "etc" / "motd").read_text()) == (mode, "old\n")
    within(agent, root, "unpack", "/bin", TREE, replace=True).check()  # a link to a folder
    assert (root / "usr" / "bin" / "file").read_text() == "new"
    assert within(agent, root, "unpack", "/etc/motd", TREE, replace=True).error[0] == errno.ENOTDIR
    for link in ("out", "absolute", "self"):
        assert within(agent, root, "unpack", f"/{link}", TREE, replace=True).error[0] == errno.ENOENT
    assert (tmp_path / "outside" / "file").read_text() == "not yours\n"


def test_unpack_follows_no_link_below(agent: Client, root: Path, tmp_path: Path) -> None:
    (root / "etc" / "d").symlink_to("/usr")
    stream = record("", 0o40755) + record("d", 0o40755) + record("d/x", 0o100644, b"x")
    assert within(agent, root, "unpack", "/etc", stream, replace=True).error == (errno.ENOTDIR, "/etc/d")
    assert not (root / "usr" / "x").exists()


def test_the_root_itself(agent: Client, root: Path, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(root)
    assert within(agent, tmp_path / "way", "write", "/x", b"").error[0] in (errno.ELOOP, errno.ENOTDIR)
    assert within(agent, tmp_path / "none", "write", "/x", b"").error[0] == errno.ENOENT


@pytest.mark.parametrize(
    ("op", "keys"),
    [
        *((op, {}) for op in ("read", "list", "stat", "readlink", "chmod", "chown", "copy", "rename", "pack", "sync")),
        ("write", {"root": b"relative"}),
        ("write", {"root": b"", "append": True}),
        ("symlink", {"root": b"", "replace": True}),
    ],
)
def test_what_makes_no_sense(agent: Client, op: str, keys: dict[str, Any]) -> None:
    usual = {"root": b"/tmp", "to": b"/x", "owner": "0", "mode": 0o600}
    assert fs(agent, op, "/x", **{**usual, **keys}).failure == "bad_args"


def test_a_write_that_is_given_up_leaves_nothing(agent: Client, root: Path) -> None:
    for replace in (False, True):
        session = fs_start(agent, "write", "/new/file", root=os.fsencode(root), replace=replace)
        feed(agent, session, b"x" * 1000, end=False)
        while not (root / "new").exists() or not os.listdir(root / "new"):
            agent.send("PING", b"", 0)
            agent.until(lambda frame: frame.name == "PONG")
        agent.send("KILL", b"", session)
        assert fs_outcome(agent, session).error[0] == errno.ECANCELED
        assert os.listdir(root / "new") == []


def test_sync(agent: Client, root: Path) -> None:
    fs(agent, "sync", root).check()
    fs(agent, "sync", root / "etc" / "motd").check()
    assert fs(agent, "sync", root / "none").error == (errno.ENOENT, str(root / "none"))
