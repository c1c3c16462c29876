"""When a child is restarted, how soon, and when its supervisor gives up: pure rules, no I/O.

Restart intensity is Erlang/OTP's `add_restart`: put the new restart in front, keep those within the
period, compare the length.
"""

import math
from enum import Enum
from random import Random

from attrs import frozen

from aiki_actors.kernel._errors import SpecError


class Restart(Enum):
    """Whether a child that ended by itself is started again."""

    PERMANENT = "permanent"
    """Always."""
    TRANSIENT = "transient"
    """After a failure only."""
    TEMPORARY = "temporary"
    """Never; a failure is reported."""


class Strategy(Enum):
    """Which children are restarted when one of them is."""

    ONE_FOR_ONE = "one for one"
    """That one."""
    ONE_FOR_ALL = "one for all"
    """All of them."""
    REST_FOR_ONE = "rest for one"
    """That one and those started after it."""


def add_restart(restarts: tuple[float, ...], now_s: float, period_s: float) -> tuple[float, ...]:
    """Return the restarts within the last `period_s` seconds, the one at `now_s` in front.

    Args:
        restarts: Earlier restarts in monotonic seconds, newest first.
        now_s: The time of the new restart; not before any of `restarts`.
        period_s: The length of the window in seconds; a restart exactly that old still counts.
    """
    return (now_s, *(at_s for at_s in restarts if now_s - at_s <= period_s))


@frozen
class Backoff:
    """How long to wait before a restart, in seconds; the first restart is immediate.

    The n-th restart of a child within its supervisor's period waits
    `min(initial_s * factor ** (n - 2), max_s)`, shortened at random by up to the share `jitter`.
    """

    initial_s: float = 0.1
    factor: float = 2.0
    max_s: float = 5.0
    jitter: float = 0.2

    def __attrs_post_init__(self) -> None:
        """Refuse what is not a finite, growing delay."""
        for name, low in (("initial_s", 0.0), ("factor", 1.0), ("max_s", 0.0), ("jitter", 0.0)):
            value: float = getattr(self, name)
            if not (low <= value < math.inf):
                raise SpecError(f"Backoff.{name} is {value!r}; it must be finite and >= {low:g}")
        if self.jitter > 1:
            raise SpecError(f"Backoff.jitter is {self.jitter!r}; it is a share between 0 and 1")

    def delay_s(self, nth: int, rng: Random) -> float:
        """Return the seconds to wait before the `nth` restart (1 is the first) in the period."""
        assert nth >= 1, "restarts are counted from one"
        if nth == 1:
            return 0.0
        # The exponent is capped so that a huge `nth` cannot overflow a float.
        delay_s = min(self.initial_s * self.factor ** min(nth - 2, 64), self.max_s)
        return delay_s * (1 - self.jitter * rng.random())
