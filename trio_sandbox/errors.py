"""Every error that trio_sandbox raises on purpose, by culprit.

    SandboxError
    ├── InvalidConfigError            what was asked for is not possible (all problems at once)
    ├── UnsupportedError              valid, but this version cannot do it
    ├── HostNotReadyError             something is missing on this machine (`trio-sandbox doctor`)
    ├── SandboxNotFoundError
    ├── SandboxAlreadyExistsError
    ├── SandboxNotRunningError
    │   ├── SandboxDrainingError
    │   └── SandboxPausedError
    ├── SandboxStillRunningError
    ├── CheckpointError               a running machine could not be copied; it goes on
    ├── HostLimitError                all sandboxes together use as much of the host as they may
    ├── PoolClosedError               the pool hands out no more sandboxes
    ├── BootError                     the machine did not come up
    ├── PatchFailedError              one of `patches=` could not be applied
    ├── SandboxCrashedError           the machine went away without being asked to
    ├── ExecFailedError               the command never started
    ├── ExecTimeoutError              the command was killed at its `timeout=`
    ├── UnsuccessfulError, NotReadyError, RestartLimitError   of the helpers: patterns/errors.py
    ├── TerminalError                 attaching needs a terminal, and there is none
    ├── MissedLogsError               log entries were removed before they were read
    ├── FilesystemError               the guest refused an operation on a file
    │   └── PathNotFoundError         because there is no such file
    ├── ImageError
    │   ├── ImageNotFoundError
    │   ├── ImagePullError
    │   ├── ImageInUseError
    │   └── InvalidImageError         damaged, hostile or over a limit
    ├── SnapshotError                 a snapshot or its archive is damaged, foreign or over a limit
    │   ├── SnapshotNotFoundError
    │   └── SnapshotAlreadyExistsError
    ├── StorageError                  the host's disk refused (full, read-only)
    ├── ConnectionLostError           nobody answers at a sandbox's socket (any more)
    ├── ClientLimitError              all client channels of the sandbox are taken
    └── ProtocolError
        ├── LocalProtocolError        our side made a wrong call
        └── RemoteProtocolError       the other side sent wrong bytes

Errors carry their facts as attributes; `str()` is one sentence that says what to do where something can be done.
An `ExceptionGroup` leaves `open_sandbox` only when a background failure joined the block's own; its leaves are these.
"""

from __future__ import annotations

from collections.abc import Sequence


class SandboxError(Exception):
    """Base of all errors of this package."""


class CheckpointError(SandboxError):
    """A machine that runs could not be copied for a fork or a snapshot. It goes on, and nothing of the copy is left."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the machine could not be copied: {reason}; it goes on, so try again")


class InvalidConfigError(SandboxError, ValueError):
    """A configuration was refused before anything was created.

    `problems` lists every fault found, one sentence each, naming the option.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class UnsupportedError(SandboxError):
    """A documented option or operation that this version does not have. Never raised for a typing mistake."""

    def __init__(self, operation: str, hint: str = "") -> None:
        self.operation = operation
        self.hint = hint
        super().__init__(f"{operation} is not supported yet" + (f": {hint}" if hint else ""))


class HostNotReadyError(SandboxError):
    """The host lacks something that sandboxes need. `component` is a line of `trio-sandbox doctor`."""

    def __init__(self, component: str, problem: str, remedy: str = "run `trio-sandbox setup`") -> None:
        self.component = component
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{component}: {problem}; {remedy}")


class NamedSandboxError(SandboxError):
    """Base of the errors about one sandbox, whose `name` they carry."""

    template = "sandbox {name!r}"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(self.template.format(name=name))


class SandboxNotFoundError(NamedSandboxError):
    """No sandbox has this name."""

    template = "there is no sandbox named {name!r}"


class SandboxAlreadyExistsError(NamedSandboxError):
    """The name is taken by a sandbox that exists now."""

    template = "a sandbox named {name!r} exists already; choose another name or end that one first"


class SandboxNotRunningError(NamedSandboxError):
    """The operation needs a running sandbox. Not raised for a crash that this call itself ran into."""

    template = "sandbox {name!r} is not running"


class SandboxDrainingError(SandboxNotRunningError):
    """The sandbox lets its sessions finish and takes no new ones."""

    template = "sandbox {name!r} is draining and takes no new sessions"


class SandboxPausedError(SandboxNotRunningError):
    """The sandbox is paused; resume it first."""

    template = "sandbox {name!r} is paused; resume it first"


class SandboxStillRunningError(NamedSandboxError):
    """The operation needs a sandbox that has ended."""

    template = "sandbox {name!r} is still running; stop or kill it first"


CONSOLE_LINES = 8
"""Lines of the guest's console that an error message repeats."""


def with_console(message: str, console_tail: str) -> str:
    """Add the console lines that matter to an error message: from a kernel panic on, else the last ones."""
    lines = [line for line in console_tail.splitlines() if line.strip()]
    panic = next((number for number, line in enumerate(lines) if "Kernel panic" in line), None)
    shown = lines[-CONSOLE_LINES:] if panic is None else lines[panic : panic + CONSOLE_LINES]
    return message + "".join(f"\n  console: {line}" for line in shown)


class HostLimitError(SandboxError):
    """There was no room on this host for one more sandbox before the deadline. Nothing was made.

    `resource`: "memory" (MiB), "boots" (in flight) or "sandboxes"; `usage` of `limit` was taken, `needed` asked for.
    `waited`: seconds, 0 for what can never fit. `ahead`: requests that waited longer.
    """

    def __init__(self, resource: str, limit: int, usage: int, needed: int, waited: float = 0, ahead: int = 0) -> None:
        self.resource, self.limit, self.usage = resource, limit, usage
        self.needed, self.waited, self.ahead = needed, waited, ahead
        unit = "MiB of memory" if resource == "memory" else resource
        problem = f"the sandbox needs {needed} {unit}, and all together may have {limit}"
        if needed <= limit:
            line = f", with {ahead} requests before this one" if ahead else ""
            problem = f"{usage} of {limit} {unit} are in use{line}; {needed} did not come free in {waited:.1f} s"
        remedy = "ask for less, wait longer (admission_timeout) or raise the limit in limits.toml"
        super().__init__(f"no room on this host: {problem}; {remedy}")


class PoolClosedError(NamedSandboxError):
    """The pool `name` is drained or closed."""

    template = "the pool {name!r} hands out no more sandboxes; open another one"


class BootError(SandboxError):
    """The machine did not reach the ready state, and nothing of it is left.

    `stage` is where it stopped: "spawn" (the VMM itself), "kernel" (no sign of the agent in time),
    "agent" (it answered wrongly or vanished), the agent's own stage ("modules", "mount", …), or "scripts" (those that
    the sandbox brings could not be put in place). `console_tail` is what the guest printed last: evidence for people,
    written by the guest.
    """

    def __init__(self, stage: str, message: str, console_tail: str = "") -> None:
        self.stage = stage
        self.console_tail = console_tail
        super().__init__(with_console(f"the sandbox did not boot ({stage}): {message}", console_tail))


class PatchFailedError(SandboxError):
    """One of `patches=` could not be applied, and nothing of the sandbox is left.

    `index`: which one, from 0; `kind`: what it was to do ("text", …); `path`: of the guest, or of a source on the host
    that vanished or changed; `reason`: a sentence; `errno`: the guest's or the host's, 0 where there is none.
    """

    def __init__(self, index: int, kind: str, path: str, reason: str, errno: int = 0) -> None:
        self.index = index
        self.kind = kind
        self.path = path
        self.reason = reason
        self.errno = errno
        super().__init__(f"patches[{index}] ({kind}) failed: {path!r}: {reason}")


class SandboxCrashedError(SandboxError):
    """The machine went away without being asked to.

    `reason` is a `trio_sandbox.lifecycle.EndReason` value; `console_tail` is evidence for people.
    """

    def __init__(self, name: str, reason: str, console_tail: str = "") -> None:
        self.name = name
        self.reason = reason
        self.console_tail = console_tail
        super().__init__(with_console(f"sandbox {name!r} crashed ({reason})", console_tail))


class ExecFailedError(SandboxError):
    """The command never ran. Not raised for a command that ran and failed: that is an exit code.

    `errno` is the guest's, 0 when there is none. `kind` is one of:

    not_found           no such program: 127 to a shell
    permission_denied   it may not be executed, by its mode or its file system: 126 to a shell
    not_executable      it is no program that this kernel can run: 126 to a shell
    bad_cwd             the working directory does not exist or may not be entered
    bad_args            what was asked for cannot be: arguments and environment over the kernel's limit, or over 1 MiB
    user_setup_failed   no such user or group
    resource_limit      the kernel refused one of the `rlimits=`
    pty_setup_failed    there is no terminal for it
    out_of_memory       the guest has no memory for it
    too_many_sessions   as many programs run as the agent, or the relay for one client, allows
    other               anything else; the guest powers off, for one
    no_such_session     attaching: no session has this number, or it has ended
    stayed_with_parent  attaching: the session is of the sandbox that this one was forked from
    session_busy        attaching: somebody is attached to it
    """

    def __init__(self, kind: str, errno: int, message: str) -> None:
        self.kind = kind
        self.errno = errno
        super().__init__(message)


class ExecTimeoutError(SandboxError, TimeoutError):
    """The command was killed in the guest at its `timeout=`.

    `stdout` and `stderr` are what it had written by then: of a stream, what `collect` kept, or the last 64 KiB that
    `wait` dropped. What `recv` returned is not repeated. `timeout` is in seconds, None on a handle that attached to the
    session and was not told it.
    """

    def __init__(self, timeout: float | None, stdout: bytes, stderr: bytes) -> None:
        self.timeout = timeout
        self.stdout = stdout
        self.stderr = stderr
        duration = "" if timeout is None else f" of {timeout:g} s"
        super().__init__(f"the command was killed at its timeout{duration}")


class TerminalError(SandboxError):
    """`attach` needs a terminal to bridge, and there is none. Nothing was started."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"cannot attach: {problem}; run it from a terminal, or use exec_stream(..., tty=True)")


class FilesystemError(SandboxError):
    """The guest could not do something with a file. Not an OSError: those are about files of the host.

    `errno` is the guest's (`errno.EACCES`, …); `path` the file that it is about, as text with bytes that are not UTF-8
    escaped as surrogates; `strerror` what the guest said.
    """

    def __init__(self, errno: int, path: str, message: str) -> None:
        self.errno = errno
        self.path = path
        self.strerror = message
        super().__init__(f"{path!r}: {message}")


class PathNotFoundError(FilesystemError):
    """There is no such file or folder in the guest (ENOENT)."""


class ImageError(SandboxError):
    """Base of the errors about one image, whose `reference` they carry."""

    def __init__(self, reference: str, message: str) -> None:
        self.reference = reference
        super().__init__(f"image {reference!r}: {message}")


class ImageNotFoundError(ImageError):
    """The reference names nothing that is here."""


class ImagePullError(ImageError):
    """A registry could not deliver the image.

    `registry` is its host, `status` the one of HTTP, None where it never came to that; `hint` says what to do.
    """

    def __init__(
        self, reference: str, message: str, *, registry: str = "", status: int | None = None, hint: str = ""
    ) -> None:
        self.registry = registry
        self.status = status
        self.hint = hint
        where = f"{registry}: " if registry else ""
        super().__init__(reference, where + message + (f"; {hint}" if hint else ""))


class ImageInUseError(ImageError):
    """The image cannot be removed while a sandbox stands on it, nor a disk image be the root of a second machine."""


class InvalidImageError(ImageError):
    """The image is damaged, breaks its own digests, tries to escape its root, or is over a limit."""


class SnapshotError(SandboxError):
    """A snapshot, or an archive of one, is damaged, of another kind, or over a limit. Nothing was made of it.

    `path` is its folder or its file, `reason` a clause that says what is wrong.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"snapshot {path!r}: {reason}")


class SnapshotNotFoundError(SnapshotError):
    """No snapshot has this name or digest, and there is none at this path."""

    def __init__(self, path: str, reason: str = "there is none; `trio-sandbox snapshot ls` lists those here") -> None:
        super().__init__(path, reason)


class SnapshotAlreadyExistsError(SnapshotError):
    """The name is taken by a snapshot."""

    def __init__(self, path: str, reason: str = "it exists already; choose another name, or force it") -> None:
        super().__init__(path, reason)


class StorageError(SandboxError):
    """The host's file system refused, usually because it is full. `path` is the folder that was written to."""

    def __init__(self, path: str, errno: int, message: str) -> None:
        self.path = path
        self.errno = errno
        super().__init__(f"{path}: {message}")


class MissedLogsError(SandboxError):
    """Log entries were removed to make room for new ones before they were read.

    `cursor`: of the last entry before the gap. `resume_cursor`: reading goes on after it with the oldest entry that is
    left. A stream that raised this goes on there by itself when it is asked again.
    """

    def __init__(self, cursor: str, resume_cursor: str) -> None:
        self.cursor = cursor
        self.resume_cursor = resume_cursor
        super().__init__(
            "log entries were removed before they were read; read on to go on with the oldest that is left"
        )


class ConnectionLostError(SandboxError):
    """Nobody answers at the `address` of a sandbox, or not any more. What the sandbox does now is not known here."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(f"nobody answers at {address}; see whether the sandbox still runs, and connect again")


class ClientLimitError(SandboxError):
    """The sandbox serves as many clients as it can. Wait for a place, or close one of them.

    `what`: "clients" (channels) or "controls" (connections that stop, kill or ask); `limit` of them exist, and `used`
    are taken.
    """

    def __init__(self, what: str, limit: int, used: int) -> None:
        self.what = what
        self.limit = limit
        self.used = used
        super().__init__(f"the sandbox has {used} of {limit} {what} already; close one or ask to wait for a place")


class ProtocolError(SandboxError):
    """Base of the two protocol errors; never raised itself."""


class LocalProtocolError(ProtocolError):
    """This side made a call that its own state forbids: a bug in the caller."""


class RemoteProtocolError(ProtocolError):
    """The other side sent bytes that the protocol forbids."""
