"""When something is started again: policy and back-off. No I/O, no clock."""

from __future__ import annotations

import enum
import math
from collections import deque
from random import Random

import attrs

from trio_sandbox.errors import InvalidConfigError


class Restart(enum.StrEnum):
    """After which ends it is started again."""

    ALWAYS = "always"
    ON_CRASH = "on-crash"
    """After a failure, not after an end that was meant."""
    NEVER = "never"


def _restart(value: str) -> Restart:
    return Restart(value) if value in list(Restart) else value  # type: ignore[return-value]  # refused below


@attrs.frozen(kw_only=True)
class RestartPolicy:
    """restart: a Restart, or its name. Times in seconds. delay: before the first restart; each one more waits `factor`
    times as long, up to `max_delay`, until a life has lasted `reset_after`. jitter: the part of a delay by which it is
    changed at random, up or down. max_restarts: within `window`; one more gives up.

    Raises InvalidConfigError with all that is wrong.
    """

    restart: Restart = attrs.field(default=Restart.ON_CRASH, converter=_restart)
    delay: float = 0.5
    factor: float = 2.0
    max_delay: float = 30.0
    jitter: float = 0.1
    reset_after: float = 60.0
    max_restarts: int = 5
    window: float = 300.0

    def __attrs_post_init__(self) -> None:
        bounds = {
            "delay": (0.0, math.inf),
            "factor": (1.0, math.inf),
            "max_delay": (0.0, math.inf),
            "jitter": (0.0, 1.0),
            "reset_after": (0.0, math.inf),
            "max_restarts": (0, math.inf),
            "window": (0.0, math.inf),
        }
        problems = [
            f"{name}: must be a number of at least {low:g}" + ("" if math.isinf(high) else f" and at most {high:g}")
            for name, (low, high) in bounds.items()
            if isinstance(value := getattr(self, name), bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ]
        if self.restart not in list(Restart):
            problems.append(f"restart: must be one of {', '.join(Restart)}, not {self.restart!r}")
        if problems:
            raise InvalidConfigError(problems)


@attrs.define(eq=False)
class Restarts:
    """The restarts so far of one thing. random: for the jitter."""

    policy: RestartPolicy
    random: Random = attrs.Factory(Random)
    count: int = 0
    _recent: deque[float] = attrs.Factory(deque)
    _delay: float | None = None

    def next_delay(self, now: float, lived: float) -> float | None:
        """Seconds until the next start of what ended now and has lived so long; None when there were too many."""
        policy = self.policy
        while self._recent and self._recent[0] <= now - policy.window:
            self._recent.popleft()
        if len(self._recent) >= policy.max_restarts:
            return None
        if self._delay is None or lived >= policy.reset_after:
            self._delay = policy.delay
        else:
            self._delay *= policy.factor
        self._delay = min(self._delay, policy.max_delay)
        self._recent.append(now)
        self.count += 1
        return self._delay * (1 + policy.jitter * self.random.uniform(-1, 1))
