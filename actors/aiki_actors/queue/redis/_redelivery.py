"""When a ready run is published, and when it is looked after again: pure, told the time.

Every ready run that a server hands to Redis is tracked until somebody claims it. It is due at once,
then 5 s after it was published, then after 10 s, doubling up to 5 minutes. What is due and cannot
be published now, because Redis is away, stays due: so this is the buffer of the publisher too, and
it is bounded. A run that finds no room is known to the database, from where it is read again.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count, islice

from attrs import define, field

from aiki_actors.storage import ReadyRun

_SLACK = 64
"""Stale entries of the heap that are always tolerated, so that it is not rebuilt all the time."""


@define(eq=False)
class Tracked:
    """A ready run that nobody has claimed yet.

    Attributes:
        run: the run.
        due_s: when it is published or looked after next, on the caller's monotonic clock.
        rounds: how often it was looked after so far.
        message: stream and id of its message in Redis, if there is one that we know of.
        withdrawn: it is not tracked any more, and a message that is on its way is not wanted.

    """

    run: ReadyRun
    due_s: float
    rounds: int = 0
    message: tuple[str, str] | None = None
    withdrawn: bool = False


@define(eq=False)
class Redelivery:
    """The ready runs of one server, by when each is due.

    Attributes:
        first_s: seconds until a published run is looked after.
        max_s: up to which that doubles.
        capacity: how many runs are tracked at most.
        refused: how many found no room so far.

    """

    first_s: float
    max_s: float
    capacity: int
    refused: int = field(default=0, init=False)
    _runs: dict[str, Tracked] = field(factory=lambda: dict[str, Tracked](), init=False)
    _heap: list[tuple[float, int, Tracked]] = field(
        factory=lambda: list[tuple[float, int, Tracked]](), init=False
    )
    _orders: count[int] = field(factory=lambda: count(1), init=False)

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._runs

    def add(self, run: ReadyRun, now_s: float) -> bool:
        """Track a run, due now; False if it is tracked already or there is no room for it."""
        if run.run_id in self._runs:
            return False
        if len(self._runs) >= self.capacity:
            self.refused += 1
            return False
        tracked = self._runs[run.run_id] = Tracked(run, now_s)
        self._file(tracked, now_s)
        return True

    def remove(self, run_id: str) -> Tracked | None:
        """Track a run no longer; returns what was known of it."""
        tracked = self._runs.pop(run_id, None)
        if len(self._heap) > 2 * len(self._runs) + _SLACK:
            self._heap = [entry for entry in self._heap if self._live(entry)]
            heapify(self._heap)
        return tracked

    def due(self, now_s: float, limit: int) -> list[Tracked]:
        """Return runs that are due, longest due first. They stay due until it is said otherwise."""
        found: list[tuple[float, int, Tracked]] = []
        while self._heap and self._heap[0][0] <= now_s and len(found) < limit:
            entry = heappop(self._heap)
            if self._live(entry):
                found.append(entry)
        for entry in found:
            heappush(self._heap, entry)
        return [tracked for _, _, tracked in found]

    def next_due_s(self) -> float | None:
        """Return when the next run is due; None if there is none."""
        while self._heap and not self._live(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def published(self, tracked: Tracked, message: tuple[str, str] | None, now_s: float) -> None:
        """Note that a run's message stands in Redis; None: it stands where it stood."""
        if message is not None:
            tracked.message = message
        self.postponed(tracked, now_s)

    def postponed(self, tracked: Tracked, now_s: float) -> None:
        """Look after a run again after its next pause."""
        if self._runs.get(tracked.run.run_id) is not tracked:
            return
        pause_s = min(self.max_s, self.first_s * float(1 << min(tracked.rounds, 30)))
        tracked.rounds += 1
        self._file(tracked, now_s + pause_s)

    def recheck(self, now_s: float) -> None:
        """Make every run due now, because what was published may be lost."""
        for tracked in self._runs.values():
            tracked.due_s = now_s
            tracked.rounds = 0
        orders = islice(self._orders, len(self._runs))
        pairs = zip(orders, self._runs.values(), strict=True)
        self._heap = [(now_s, order, tracked) for order, tracked in pairs]
        heapify(self._heap)

    def _file(self, tracked: Tracked, due_s: float) -> None:
        tracked.due_s = due_s
        heappush(self._heap, (due_s, next(self._orders), tracked))
        if len(self._heap) > 2 * len(self._runs) + _SLACK:
            self._heap = [entry for entry in self._heap if self._live(entry)]
            heapify(self._heap)

    def _live(self, entry: tuple[float, int, Tracked]) -> bool:
        due_s, _, tracked = entry
        return tracked.due_s == due_s and self._runs.get(tracked.run.run_id) is tracked
