"""The resource limits that a program can be started under. No I/O."""

from __future__ import annotations

import enum

import attrs


class RlimitResource(enum.StrEnum):
    """The resources of setrlimit(2) under Linux."""

    CPU = "cpu"
    FSIZE = "fsize"
    DATA = "data"
    STACK = "stack"
    CORE = "core"
    RSS = "rss"
    NPROC = "nproc"
    NOFILE = "nofile"
    MEMLOCK = "memlock"
    AS = "as"
    LOCKS = "locks"
    SIGPENDING = "sigpending"
    MSGQUEUE = "msgqueue"
    NICE = "nice"
    RTPRIO = "rtprio"
    RTTIME = "rttime"


NUMBERS = {resource: number for number, resource in enumerate(RlimitResource)}
"""The numbers of the kernel, which counts in this order."""


INFINITY = -1
"""A limit that is none, here and on the wire."""
_LIMIT_MAX = (1 << 63) - 1


@attrs.frozen
class Rlimit:
    """A resource limit for one program: the soft limit holds, the program may raise it up to the hard one.

    resource: a RlimitResource or its name. soft, hard: 0 to 2**63 - 1, or -1 for infinity; soft is not above hard.
    Raises TypeError and ValueError. The constructors below set both to the same.
    """

    resource: RlimitResource = attrs.field(converter=RlimitResource)
    soft: int
    hard: int

    def __attrs_post_init__(self) -> None:
        for bound in (self.soft, self.hard):
            if type(bound) is not int:
                raise TypeError(f"rlimits: {self.resource}: a limit must be int, not {type(bound).__name__}")
            if not INFINITY <= bound <= _LIMIT_MAX:
                raise ValueError(f"rlimits: {self.resource}: {bound} is not a limit")
        if self.hard != INFINITY and (self.soft == INFINITY or self.soft > self.hard):
            raise ValueError(f"rlimits: {self.resource}: the soft limit {self.soft} is above the hard one {self.hard}")

    @classmethod
    def cpu(cls, seconds: int) -> Rlimit:
        """CPU time in seconds."""
        return cls(RlimitResource.CPU, seconds, seconds)

    @classmethod
    def fsize(cls, size: int) -> Rlimit:
        """Bytes of a file that is written."""
        return cls(RlimitResource.FSIZE, size, size)

    @classmethod
    def data(cls, size: int) -> Rlimit:
        """Bytes of private writable memory."""
        return cls(RlimitResource.DATA, size, size)

    @classmethod
    def stack(cls, size: int) -> Rlimit:
        """Bytes of stack."""
        return cls(RlimitResource.STACK, size, size)

    @classmethod
    def core(cls, size: int) -> Rlimit:
        """Bytes of a core dump; 0 for none."""
        return cls(RlimitResource.CORE, size, size)

    @classmethod
    def rss(cls, size: int) -> Rlimit:
        """Bytes of resident memory. Today's Linux does not enforce it."""
        return cls(RlimitResource.RSS, size, size)

    @classmethod
    def nproc(cls, limit: int) -> Rlimit:
        """Processes of the user."""
        return cls(RlimitResource.NPROC, limit, limit)

    @classmethod
    def nofile(cls, limit: int) -> Rlimit:
        """Open files."""
        return cls(RlimitResource.NOFILE, limit, limit)

    @classmethod
    def memlock(cls, size: int) -> Rlimit:
        """Bytes of locked memory."""
        return cls(RlimitResource.MEMLOCK, size, size)

    @classmethod
    def as_(cls, *, soft: int, hard: int) -> Rlimit:
        """Bytes of address space."""
        return cls(RlimitResource.AS, soft, hard)

    @classmethod
    def locks(cls, limit: int) -> Rlimit:
        """File locks. Today's Linux does not enforce it."""
        return cls(RlimitResource.LOCKS, limit, limit)

    @classmethod
    def sigpending(cls, limit: int) -> Rlimit:
        """Signals that are queued for the user."""
        return cls(RlimitResource.SIGPENDING, limit, limit)

    @classmethod
    def msgqueue(cls, size: int) -> Rlimit:
        """Bytes in the user's POSIX message queues."""
        return cls(RlimitResource.MSGQUEUE, size, size)

    @classmethod
    def nice(cls, limit: int) -> Rlimit:
        """20 less the lowest nice value that may be set."""
        return cls(RlimitResource.NICE, limit, limit)

    @classmethod
    def rtprio(cls, limit: int) -> Rlimit:
        """The highest real-time priority, 0 to 99."""
        return cls(RlimitResource.RTPRIO, limit, limit)

    @classmethod
    def rttime(cls, microseconds: int) -> Rlimit:
        """Microseconds of real-time computing without a pause."""
        return cls(RlimitResource.RTTIME, microseconds, microseconds)
