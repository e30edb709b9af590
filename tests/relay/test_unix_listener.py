"""The relay's Unix socket: who may come in, and what is done with what lies in its way."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from trio_sandbox.errors import StorageError
from trio_sandbox.relay import unix_listener as module
from trio_sandbox.relay.connection import Transport
from trio_sandbox.relay.unix_listener import UnixListener
from trio_sandbox.service import service

pytestmark = pytest.mark.anyio


async def echo(transport: Transport) -> None:
    while data := await transport.receive():
        await transport.send([data])
    await transport.aclose()


@asynccontextmanager
async def listening(path: Path) -> AsyncIterator[None]:
    async with service(UnixListener(path).serve, echo, name="listener"):
        yield


async def talk(path: Path) -> bytes:
    """What comes back: b"hello" from the listener, b"" from one that turns us away."""
    folder = os.open(path.parent, os.O_PATH)
    try:
        async with await trio.open_unix_socket(f"/proc/self/fd/{folder}/{path.name}") as stream:
            try:
                await stream.send_all(b"hello")
                return bytes(await stream.receive_some(100))
            except trio.BrokenResourceError:
                return b""
    finally:
        os.close(folder)


async def test_only_its_owner_may_use_it_and_it_goes_with_the_listener(tmp_path: Path) -> None:
    path = tmp_path / "relay"
    async with listening(path):
        found = path.stat()
        assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600
        assert await talk(path) == b"hello"
    assert not path.exists()


async def test_the_mode_does_not_hang_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with listening(tmp_path / "relay"):
            assert stat.S_IMODE((tmp_path / "relay").stat().st_mode) == 0o600
    finally:
        os.umask(before)


async def test_what_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "relay"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with listening(path):
        assert await talk(path) == b"hello"


@pytest.mark.parametrize("backlog", [1, 0], ids=["idle", "busy"])
async def test_one_that_somebody_listens_on_is_left_alone(tmp_path: Path, backlog: int) -> None:
    """Also where its queue is full, so that a connect(2) would wait for it."""
    path = tmp_path / "relay"
    with socket.socket(socket.AF_UNIX) as alive, socket.socket(socket.AF_UNIX) as first:
        alive.bind(str(path))
        alive.listen(backlog)
        if not backlog:
            first.connect(str(path))
        with trio.fail_after(5), pytest.raises(StorageError, match="somebody listens there"):
            async with listening(path):
                pass
        assert path.is_socket()


async def test_a_plain_file_in_the_way_is_an_error_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "relay"
    path.write_text("precious")
    with pytest.raises(StorageError) as caught:
        async with listening(path):
            pass
    assert caught.value.path == str(path)
    assert path.read_text() == "precious"


async def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    path, target = tmp_path / "relay", tmp_path / "elsewhere"
    path.symlink_to(target)
    with pytest.raises(StorageError):
        async with listening(path):
            pass
    assert path.is_symlink() and not target.exists()


async def test_a_path_longer_than_a_socket_address(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 100) / ("b" * 100)
    folder.mkdir(parents=True)
    async with listening(folder / "relay"):
        assert await talk(folder / "relay") == b"hello"
    assert not (folder / "relay").exists()


async def test_a_name_longer_than_a_socket_address_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="too long"):
        async with listening(tmp_path / ("a" * 120)):
            pass


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        async with listening(tmp_path / "nowhere" / "relay"):
            pass
    assert caught.value.path == str(tmp_path / "nowhere")


async def test_what_replaced_it_meanwhile_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "relay"
    async with listening(path):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


async def test_one_that_is_gone_already_is_no_error(tmp_path: Path) -> None:
    async with listening(tmp_path / "relay"):
        (tmp_path / "relay").unlink()


@pytest.mark.parametrize(
    ("uid", "welcome"), [(os.geteuid(), True), (0, True), (os.geteuid() + 1000, False)], ids=["own", "root", "other"]
)
async def test_peers_are_let_in_by_their_user(
    tmp_path: Path, uid: int, welcome: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Credentials:
        size = module._CREDENTIALS.size

        @staticmethod
        def unpack(_: bytes) -> tuple[int, int, int]:
            return 1, uid, 0

    monkeypatch.setattr(module, "_CREDENTIALS", Credentials)
    async with listening(tmp_path / "relay"):
        assert await talk(tmp_path / "relay") == (b"hello" if welcome else b"")


PROBE = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as sock:
    try:
        sock.connect(sys.argv[1])
        sock.sendall(b"hello")
        print("connected", sock.recv(100))
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", [0o600, 0o666], ids=["by-mode", "by-credentials"])
async def test_another_user_is_refused(mode: int) -> None:
    """By the file's mode; and where somebody has widened that, by the credentials of the connection."""
    from tempfile import TemporaryDirectory  # pytest's own folders are closed to other users

    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "relay"
        async with listening(path):
            path.chmod(mode)
            done = await trio.run_process([sys.executable, "-c", PROBE, str(path)], capture_stdout=True)
            answer = done.stdout.decode().strip()
            turned_away = ("connected b''", "ConnectionResetError", "BrokenPipeError")
            assert answer in (("PermissionError",) if mode == 0o600 else turned_away)
            assert await talk(path) == b"hello"
