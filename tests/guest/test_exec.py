"""One command: how it starts, what it gets, how its end is told."""

from __future__ import annotations

import errno
import os
import pwd
import signal
import sys
from pathlib import Path

import pytest

from tests.guest.agent_client import MORE, Client, exec_map

AS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not AS_ROOT, reason="changing the user needs root")


def test_output_and_errors_are_apart_and_exited_is_last(agent: Client) -> None:
    outcome = agent.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (outcome.stdout, outcome.stderr, outcome.code, outcome.signal) == (b"out\n", b"err\n", 3, 0)
    assert outcome.frames[0].name == "STARTED"
    assert outcome.end.body["held_open"] is False
    assert outcome.end.body["timed_out"] is False


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 128, 200, 255])
def test_exit_codes(agent: Client, code: int) -> None:
    outcome = agent.run(["sh", "-c", f"exit {code}"])
    assert (outcome.code, outcome.signal) == (code, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE])
def test_death_by_a_signal_is_told_apart_from_exit_codes(agent: Client, number: int) -> None:
    outcome = agent.run(["sh", "-c", f"kill -{number} $$"])
    assert (outcome.code, outcome.signal) == (-1, number)


def test_resource_usage(agent: Client) -> None:
    body = agent.run([sys.executable, "-S", "-c", "sum(range(2_000_000))"]).end.body
    assert body["utime_us"] > 1000
    assert body["maxrss_kib"] > 1000


def test_no_stdin_is_dev_null(agent: Client) -> None:
    assert agent.run(["cat"]).code == 0
    assert agent.run(["readlink", "/proc/self/fd/0"]).stdout == b"/dev/null\n"


def test_environment_is_what_was_asked_for_and_nothing_else(agent: Client) -> None:
    outcome = agent.run(["/usr/bin/env"], env=["A=1", b"B=\xff", "EMPTY=", "HOME=/here"])
    assert outcome.stdout == b"A=1\nB=\xff\nEMPTY=\nHOME=/here\n"


def test_home_is_added_for_a_known_user(agent: Client) -> None:
    outcome = agent.run(["/usr/bin/env"], env=[])
    assert outcome.stdout.decode() == f"HOME={pwd.getpwuid(0).pw_dir}\n"


def test_child_has_only_the_standard_descriptors(agent: Client) -> None:
    listing = agent.run([sys.executable, "-S", "-c", "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"])
    assert listing.stdout == b"[0, 1, 2, 3]\n"  # 3 is the folder itself


def test_child_starts_with_clean_signals_umask_and_session(agent: Client) -> None:
    status = agent.run(["cat", "/proc/self/status"]).stdout.decode()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert int(fields["SigBlk"], 16) == 0
    assert int(fields["SigIgn"], 16) == 0
    assert fields["Umask"].strip() == "0022"
    stat = agent.run(["cat", "/proc/self/stat"]).stdout.split()
    assert stat[0] == stat[4] == stat[5]  # pid, process group, session


def test_working_folder(agent: Client, tmp_path: Path) -> None:
    assert agent.run(["pwd"], cwd=str(tmp_path)).stdout.decode() == f"{tmp_path}\n"


def test_path_of_the_environment_is_searched_in_order(agent: Client, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    script = tmp_path / "second" / "tool"
    script.write_text("#!/bin/sh\necho second\n")
    script.chmod(0o755)
    refused = tmp_path / "first" / "tool"
    refused.write_text("#!/bin/sh\necho first\n")
    refused.chmod(0o644)
    path = f"PATH=/nowhere:{tmp_path}/first:{tmp_path}/second"
    assert agent.run(["tool"], env=[path]).stdout == b"second\n"
    assert agent.run(["tool"], env=[f"PATH={tmp_path}/first"]).failure == "permission_denied"
    assert agent.run(["tool"], env=["PATH="], cwd=str(tmp_path / "second")).stdout == b"second\n"
    assert agent.run(["true"], env=[]).code == 0  # a default, for the search only


def write(path: Path, content: str, mode: int) -> str:
    path.write_text(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("argv", "options", "kind", "number"),
    [
        (["no-such-program"], {}, "not_found", errno.ENOENT),
        (["/no/such/program"], {}, "not_found", errno.ENOENT),
        (["/etc/passwd/x"], {}, "not_found", errno.ENOTDIR),
        ([""], {}, "not_found", errno.ENOENT),
        (["/etc/passwd"], {}, "permission_denied", errno.EACCES),
        (["/usr"], {}, "permission_denied", errno.EACCES),
        (["true"], {"cwd": "/no/such/folder"}, "bad_cwd", errno.ENOENT),
        (["true"], {"cwd": "/etc/passwd"}, "bad_cwd", errno.ENOTDIR),
        (["true"], {"cwd": "relative"}, "bad_cwd", errno.EINVAL),
        (["true"], {"user": "no-such-user"}, "user_setup_failed", errno.ENOENT),
        (["true"], {"user": "0:no-such-group"}, "user_setup_failed", errno.ENOENT),
        (["true"], {"user": ":"}, "user_setup_failed", errno.EINVAL),
        (["true"], {"user": "4294967295"}, "user_setup_failed", errno.ENOENT),
        (["true"], {"rlimits": [[7, 10, 5]]}, "resource_limit", errno.EINVAL),
        (["true"], {"rlimits": [[99, 1, 1]]}, "resource_limit", errno.EINVAL),
        (["true", "x" * 200_000], {}, "bad_args", errno.E2BIG),
        ([], {}, "bad_args", errno.EINVAL),
        (["true"] * 4097, {}, "bad_args", errno.EINVAL),
        (["true", "a\0b"], {}, "bad_args", errno.EINVAL),
        (["true"], {"env": ["NOVALUE"]}, "bad_args", errno.EINVAL),
        (["true"], {"env": ["=x"]}, "bad_args", errno.EINVAL),
        (["true"], {"cwd": "/\0"}, "bad_args", errno.EINVAL),
        (["true"], {"cwd": 1}, "bad_args", errno.EINVAL),
        (["true"], {"stdin": 1}, "bad_args", errno.EINVAL),
        (["true"], {"timeout_ms": -1}, "bad_args", errno.EINVAL),
        (["true"], {"rlimits": [[7, 1]]}, "bad_args", errno.EINVAL),
        (["true"], {"rlimits": [[7, -2, 1]]}, "bad_args", errno.EINVAL),
    ],
)
def test_what_cannot_start_says_why(
    agent: Client, argv: list[str], options: dict[str, object], kind: str, number: int
) -> None:
    fits = sum(map(len, argv)) < 10_000
    outcome = agent.outcome((agent.start if fits else agent.start_in_parts)(argv, **options))
    assert (outcome.failure, outcome.end.body["errno"]) == (kind, number), outcome.end
    assert outcome.end.body["message"]
    assert len(outcome.frames) == 1  # no STARTED
    assert agent.run(["true"]).code == 0


def test_files_that_are_no_programs(agent: Client, tmp_path: Path) -> None:
    text = write(tmp_path / "text", "echo no interpreter named\n", 0o755)
    assert agent.run([text]).failure == "not_executable"
    empty = write(tmp_path / "empty", "", 0o755)
    assert agent.run([empty]).failure == "not_executable"
    orphan = agent.run([write(tmp_path / "orphan", "#!/no/such/interpreter\n", 0o755)])
    assert orphan.failure == "not_found"
    assert "interpreter" in orphan.end.body["message"]


def test_a_message_is_ascii_whatever_the_name_was(agent: Client) -> None:
    outcome = agent.run([b"\xff\x01" + "é".encode()])
    assert outcome.failure == "not_found"
    assert outcome.end.body["message"].isascii()


def test_resource_limits(agent: Client) -> None:
    outcome = agent.run(["sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c"], rlimits=[[7, 64, 128], [4, 0, -1]])
    assert outcome.stdout == b"64\n128\n0\n"


@needs_root
def test_users_by_name_and_number(agent: Client) -> None:
    ids = ["sh", "-c", "id -u; id -g; id -G"]
    nobody = pwd.getpwnam("nobody")
    expected = f"{nobody.pw_uid}\n{nobody.pw_gid}\n{nobody.pw_gid}\n".encode()
    assert agent.run(ids, user="nobody").stdout == expected
    assert agent.run(ids, user=str(nobody.pw_uid)).stdout == expected
    assert agent.run(ids, user="4242").stdout == b"4242\n0\n0\n"
    assert agent.run(ids, user="4242:4343").stdout == b"4242\n4343\n4343\n"
    assert agent.run(ids, user="nobody:daemon").stdout == f"{nobody.pw_uid}\n1\n1\n".encode()


@needs_root
def test_a_user_without_rights_is_refused_a_folder_and_a_program(agent: Client, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert agent.run(["true"], cwd=str(tmp_path), user="nobody").failure == "bad_cwd"
    script = write(tmp_path / "tool", "#!/bin/sh\n", 0o755)
    assert agent.run([script], user="nobody").failure == "permission_denied"


def test_exec_in_parts(agent: Client) -> None:
    big = [f"V{number}={'x' * 50}" for number in range(4000)]
    session = agent.start_in_parts(["sh", "-c", "env | wc -l"], env=[*big, "PATH=/usr/bin:/bin", "HOME=/"])
    assert int(agent.outcome(session).stdout) >= 4002


def test_exec_parts_of_two_sessions_may_alternate(agent: Client) -> None:
    first, second = agent.parts(["echo", "one"]), agent.parts(["echo", "two"])
    agent.last_session = 2
    for number, (one, two) in enumerate(zip(first, second, strict=True)):
        more = MORE if number < len(first) - 1 else 0
        agent.send("EXEC", one, 1, flags=more)
        agent.send("EXEC", two, 2, flags=more)
    assert agent.outcome(1).stdout == b"one\n"
    assert agent.outcome(2).stdout == b"two\n"


def test_exec_longer_than_a_mebibyte_is_refused(agent: Client) -> None:
    agent.last_session = 1
    for _ in range(17):
        agent.send("EXEC", b"x" * 65_536, 1, flags=MORE)
    outcome = agent.outcome(1)
    assert (outcome.failure, outcome.end.body["errno"]) == ("bad_args", errno.E2BIG)
    assert agent.run(["true"]).code == 0


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x80", b"\xdf\x7f\xff\xff\xff", b"\x81\xa4argv"])
def test_malformed_exec(agent: Client, raw: bytes) -> None:
    agent.last_session = 1
    agent.send("EXEC", raw, 1)
    assert agent.outcome(1).failure == "bad_args"


def test_unknown_keys_are_skipped_and_missing_ones_have_defaults(agent: Client) -> None:
    agent.last_session = 2
    agent.send("EXEC", {**exec_map(["echo", "hi"]), "later": {"deep": [[[1]], 2.5, None]}}, 1)
    assert agent.outcome(1).stdout == b"hi\n"
    agent.send("EXEC", {"argv": ["/bin/echo", "hi"]}, 2)
    assert agent.outcome(2).stdout == b"hi\n"
