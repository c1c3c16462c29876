"""For how long a worker may believe that its claims count, by its own monotonic clock.

The server's lease runs from when it last heard of the worker; two thirds of it from when the worker
*asked* for the last answer that came, which is earlier. So the worker has stopped before the server
gives its runs to others, whatever the clocks say and however long the worker was frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio
from attrs import define, field

BEATS_MAX: Final = 64
"""Heartbeats without an answer of which the time is remembered."""


@define(eq=False)
class Lease:
    """When the server was last known to know of the worker.

    Attributes:
        changed: set when an answer came, or when there is something to lose again.

    """

    monotonic: Callable[[], float]
    changed: trio.Event = field(factory=trio.Event, init=False)
    _number: int = field(default=0, init=False)
    _asked: dict[int, float] = field(factory=lambda: dict[int, float](), init=False)
    _known_at: float = field(default=0.0, init=False)

    def next_beat(self) -> int:
        """Return the number of a heartbeat that is about to be sent."""
        self._number += 1
        self._asked[self._number] = self.monotonic()
        while len(self._asked) > BEATS_MAX:
            del self._asked[next(iter(self._asked))]
        return self._number

    def answered(self, number: int) -> None:
        """Note that a heartbeat was answered."""
        asked_at = self._asked.pop(number, None)
        if asked_at is not None:
            self.known_at(asked_at)

    def known_at(self, asked_at: float) -> None:
        """Note that the server answered what was asked then."""
        self._known_at = max(self._known_at, asked_at)
        self.changed.set()

    def left_s(self, lease_s: float) -> float:
        """Return the seconds that are left of a lease; may be below 0."""
        return self._known_at + lease_s - self.monotonic()
