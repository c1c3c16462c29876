"""The timers in memory: at most one per run, the earliest first.

Changing or dropping a timer leaves its old entry in the heap, where it is recognised as stale by
not being what the dictionary says; the heap is rebuilt when most of it is stale. So every operation
is O(log n) on average, and a timer costs about 250 bytes, its run id included.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

from attrs import define, field

from aiki_actors.engine import Micros

Place = tuple[int, str]
"""Where a timer stands in the order that the database reads them in: (due_at, run_id)."""

_SLACK: Final = 1_024


@define(eq=False)
class NearTimers:
    """Run ids by the time at which they are due."""

    _due: dict[str, Micros] = field(factory=lambda: dict[str, Micros](), init=False)
    _heap: list[tuple[Micros, str]] = field(factory=lambda: list[tuple[Micros, str]](), init=False)

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._due

    def put(self, run_id: str, due_at: Micros) -> None:
        """Set the run's timer, in place of the one it has."""
        if self._due.get(run_id) == due_at:
            return
        self._due[run_id] = due_at
        heappush(self._heap, (due_at, run_id))
        self._compact()

    def drop(self, run_id: str) -> bool:
        """Drop the run's timer; False if it has none."""
        if self._due.pop(run_id, None) is None:
            return False
        self._compact()
        return True

    def first(self) -> Micros | None:
        """Return when the earliest timer is due, or None if there is none."""
        heap = self._heap
        while heap:
            due_at, run_id = heap[0]
            if self._due.get(run_id) == due_at:
                return due_at
            heappop(heap)
        return None

    def pop_due(self, now: Micros, limit: int) -> list[str]:
        """Take out up to `limit` runs that are due at `now`, the earliest first."""
        found: list[str] = []
        heap = self._heap
        while heap and heap[0][0] <= now and len(found) < limit:
            due_at, run_id = heappop(heap)
            if self._due.get(run_id) == due_at:
                del self._due[run_id]
                found.append(run_id)
        return found

    def keep_first(self, count: int) -> Place:
        """Drop all but the `count` earliest timers; returns the place of the last one kept."""
        assert 0 < count <= len(self._due), f"cannot keep {count} of {len(self._due)} timers"
        kept = sorted((due_at, run_id) for run_id, due_at in self._due.items())[:count]
        self._due = {run_id: due_at for due_at, run_id in kept}
        self._heap = kept
        return kept[-1]

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._due) + _SLACK:
            self._heap = [(due_at, run_id) for run_id, due_at in self._due.items()]
            heapify(self._heap)
