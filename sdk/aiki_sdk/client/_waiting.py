"""How long a client waits: deadlines on a monotonic clock.

No clock but the one that the client was given; without one, Trio's inside Trio (which skips time
under a MockClock) and the machine's elsewhere.
"""

import sys
from collections.abc import Callable
from typing import Final, TypeAlias

from attrs import frozen

from aiki_sdk._durations import Duration, optional_seconds
from aiki_sdk._errors import ResultTimeout
from aiki_sdk._ports import SystemClock

Monotonic: TypeAlias = Callable[[], float]
"""Seconds from an arbitrary start, never going back."""

_machine: Final = SystemClock()


def ambient_monotonic() -> float:
    """Return Trio's time if Trio is running here, else the machine's, in seconds."""
    # Where Trio was never imported it is not running, and an asyncio client need not load it.
    if "trio" in sys.modules:
        import trio

        if trio.lowlevel.in_trio_run():
            return trio.current_time()
    return _machine.monotonic()


@frozen
class Deadline:
    """A moment until which to wait, or none.

    Attributes:
        timeout_s: what was asked for, in seconds; None: no limit.
    """

    timeout_s: float | None
    _at_s: float
    _monotonic: Monotonic

    @classmethod
    def after(cls, timeout: Duration | None, monotonic: Monotonic) -> "Deadline":
        """Begin to wait now.

        Raises:
            InvalidRequest: naming the timeout, if it is not one.
        """
        timeout_s = optional_seconds("timeout", timeout)
        return cls(timeout_s, monotonic() + (timeout_s or 0.0), monotonic)

    def left_s(self) -> float | None:
        """Return the seconds left, 0 if it is over; None: no limit."""
        if self.timeout_s is None:
            return None
        return max(0.0, self._at_s - self._monotonic())

    def check(self, run_id: str, what: str) -> None:
        """Do nothing before the deadline.

        Raises:
            ResultTimeout: after it, naming the run and what it was waited for.
        """
        if self.left_s() == 0:
            message = f"run {run_id} did not {what} within {self.timeout_s:g} s; it goes on"
            raise ResultTimeout(message, details={"run_id": run_id, "timeout_s": self.timeout_s})
