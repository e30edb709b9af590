"""A room of its own for an agent that anything may be said to: nothing of the host can be reached from it.

The agent runs as an ordinary process here, and a fuzzer asks it to run programs and to remove files. So it lives in
namespaces of its own (user, mount, pid, network, IPC, host name), below a root that holds copies of a few small
programs and what they are linked to, read-only, and a /tmp of 16 MiB in memory. Who is root in there is nobody outside.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import attrs

PROGRAMS = ("true", "cat", "echo", "sleep")
NOBODY = 65534
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:exitcode=99:log_path=/reports/asan:quarantine_size_mb=16",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1:exitcode=99:log_path=/reports/ubsan",
    "LSAN_OPTIONS": "exitcode=99",
}

# PID 1 of the room is the second shell: the agent boots a machine when it is PID 1 itself.
_ENTER = """set -e
cd "$1"
mount --bind . .
cd "$1"
mount -t tmpfs -o size=16m,nr_inodes=2000,mode=1777 tmpfs tmp
mount -t proc -o ro proc proc
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
mount --bind /dev/null dev/null
mount --bind reports reports
mount -o remount,bind,ro .
exec chroot . /bin/sh -c "$2" sh "$3"
"""
_RUN = '/agent --fd "$1" --events /tmp/events.sock; exit $?'

_NAMESPACES = (
    "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts"
)  # fmt: skip


def _outsider() -> dict[str, Any]:
    """Who the root of the room is outside of it: for Popen."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}


def _libraries(program: Path) -> set[Path]:
    """The files that the dynamic linker brings to a program, itself included."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", said)}


def _copy(source: Path, root: Path, name: str | Path) -> None:
    target = root / str(name).lstrip("/")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


@attrs.frozen
class Chamber:
    """The root on the host; several agents may be in it at once, each with namespaces of its own."""

    root: Path

    @classmethod
    def build(cls, root: Path, agent: Path) -> Chamber:
        """Fill the folder `root`, which must be open to everybody."""
        for name in ("tmp", "proc", "dev/pts", "reports", "etc"):
            (root / name).mkdir(parents=True)
        (root / "dev" / "null").touch()
        (root / "dev" / "ptmx").symlink_to("pts/ptmx")
        (root / "etc" / "passwd").write_text("root:x:0:0:root:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        (root / "etc" / "group").write_text("root:x:0:\nnobody:x:65534:\n")
        programs = {Path("/agent"): agent, Path("/bin/msb-event"): agent}
        for name in ("sh", *PROGRAMS):
            found = shutil.which(name)
            assert found, name
            programs[Path("/bin") / name] = Path(found)
        for path, program in programs.items():
            _copy(program, root, path)
            for library in _libraries(program):
                _copy(library, root, library)
        (root / "reports").chmod(0o1777)
        return cls(root)

    def problem(self) -> str | None:
        """Why no agent can be in here, or None."""
        said = subprocess.run(
            ["unshare", *_NAMESPACES, "sh", "-c", _ENTER, "sh", self.root, "exit 0", "-"],
            capture_output=True,
            text=True,
            env={"PATH": os.environ.get("PATH", os.defpath)},
            **_outsider(),
        )
        return said.stderr or f"status {said.returncode}" if said.returncode else None

    def reports(self) -> str:
        """What the sanitizers said since the chamber was built."""
        return "".join(path.read_text(errors="replace") for path in sorted((self.root / "reports").iterdir()))

    def start(self, port: socket.socket, log: Path) -> subprocess.Popen[bytes]:
        """The agent on `port`, within a process that ends as it does and takes everything with it."""
        command: tuple[str | Path, ...] = (
            "unshare", *_NAMESPACES, "sh", "-c", _ENTER, "sh", self.root, _RUN, str(port.fileno())
        )  # fmt: skip
        with log.open("wb") as stderr:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=[port.fileno()],
                env={"PATH": os.environ.get("PATH", os.defpath), **SANITIZERS},
                **_outsider(),
            )
