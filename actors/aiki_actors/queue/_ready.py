"""The runs that wait for a worker, in the order in which they are handed out.

Lanes: high, normal, low, and *raised*: low runs that have waited long enough. A lane is a round
robin over the workflows that have runs in it; within a workflow the run that is ready longest goes
first. Lanes are emptied high, normal, low; while there are raised runs, every second run that one
kind of worker takes is a raised one. So neither does a flood of urgent runs starve the low ones,
nor a backlog of old low ones the urgent.

Invariants:
    A run is in the queue at most once; at most `capacity` runs are.
    While a workflow has a run in a lane, each other workflow is served from that lane at most
    once before it, by workers that serve both.

The database knows every ready run; what is dropped here for want of room is read again from there.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import timedelta
from itertools import count
from typing import Final

from attrs import Factory, define, field

from aiki_actors.engine import Micros
from aiki_actors.storage import ReadyRun
from aiki_sdk.protocol import Priority

from ._heap import LazyHeap
from ._served import FairnessKey, QueueKey, Served, key_of

CAPACITY: Final = 10_000
"""Runs kept in memory: a few seconds of work for a large fleet, a few megabytes."""

LOW_WAIT: Final = timedelta(seconds=60)
"""How long a low run waits behind others before it is raised."""


@define(eq=False)
class _Entry:
    """A run in the queue; `lane` is None once it has left."""

    run: ReadyRun
    key: QueueKey
    order: int
    lane: _Lane | None = None


@define(eq=False)
class _Party:
    """The runs of one workflow in one lane; `turn` is when it was last served or joined."""

    turn: int
    heaps: dict[QueueKey, LazyHeap[_Entry]] = Factory(lambda: dict[QueueKey, LazyHeap[_Entry]]())

    def first(self, served: Served) -> _Entry | None:
        """Return the run that is ready longest among those that can be given to such a worker."""
        best: _Entry | None = None
        for key, heap in self.heaps.items():
            if served.serves(key):
                entry = heap.first()
                if entry is not None and (best is None or _age(entry) < _age(best)):
                    best = entry
        return best


def _age(entry: _Entry) -> tuple[int, int]:
    return entry.run.ready_at, entry.order


@define(eq=False)
class _Lane:
    """Runs of one urgency; `parties` in the order in which they are served next."""

    parties: OrderedDict[FairnessKey, _Party] = Factory(lambda: OrderedDict[FairnessKey, _Party]())
    newest: LazyHeap[_Entry] = field(init=False)
    _turns: count[int] = Factory(lambda: count(1))

    def __attrs_post_init__(self) -> None:
        """Tie the heap to the lane."""
        self.newest = LazyHeap(self._holds)

    def _holds(self, entry: _Entry) -> bool:
        return entry.lane is self

    def __len__(self) -> int:
        return self.newest.live

    def add(self, entry: _Entry) -> None:
        assert entry.lane is None, f"run {entry.run.run_id} is in a lane already"
        entry.lane = self
        party = self.parties.get(entry.key.fairness)
        if party is None:
            party = self.parties[entry.key.fairness] = _Party(next(self._turns))
        heap = party.heaps.get(entry.key)
        if heap is None:
            heap = party.heaps[entry.key] = LazyHeap(self._holds)
        heap.push(entry.run.ready_at, entry.order, entry)
        self.newest.push(-entry.run.ready_at, -entry.order, entry)

    def discard(self, entry: _Entry) -> None:
        assert entry.lane is self, f"run {entry.run.run_id} is not in this lane"
        entry.lane = None
        self.newest.forget()
        party = self.parties[entry.key.fairness]
        heap = party.heaps[entry.key]
        heap.forget()
        if not heap.live:
            del party.heaps[entry.key]
            if not party.heaps:
                del self.parties[entry.key.fairness]

    def first(self, served: Served) -> _Entry | None:
        """Return the run that such a worker is given next from this lane."""
        # Most often the first party is served. A crowd that no such worker serves may stand before
        # it, so the walk is given up for a look at each party that is served.
        for steps, party in enumerate(self.parties.values()):
            if steps > len(served.fairness):
                return self._first_of(served)
            entry = party.first(served)
            if entry is not None:
                return entry
        return None

    def _first_of(self, served: Served) -> _Entry | None:
        best: _Entry | None = None
        best_turn = 0
        for name in served.fairness:
            party = self.parties.get(name)
            if party is not None and (best is None or party.turn < best_turn):
                entry = party.first(served)
                if entry is not None:
                    best, best_turn = entry, party.turn
        return best

    def serve(self, entry: _Entry) -> None:
        """Take `entry` out and put its workflow behind the others."""
        party = self.parties[entry.key.fairness]
        party.turn = next(self._turns)
        self.parties.move_to_end(entry.key.fairness)
        self.discard(entry)


@define(eq=False)
class ReadyQueue:
    """The ready runs of this process, bounded.

    Attributes:
        capacity: how many runs are kept at most; past it the lowest-ranked is dropped.
        low_wait: how long a low run waits, since it became ready, before it is raised.
        overflowed: a run was dropped since the owner last set this to False; the database still
            has it.

    Costs: O(log n) in runs; `take` also grows with the workflows that the worker serves.
    """

    capacity: int = field(default=CAPACITY)
    low_wait: timedelta = LOW_WAIT
    overflowed: bool = field(default=False, init=False)
    _entries: dict[str, _Entry] = field(factory=lambda: dict[str, _Entry](), init=False)
    _lanes: dict[Priority, _Lane] = field(
        factory=lambda: {
            priority: _Lane() for priority in (Priority.HIGH, Priority.NORMAL, Priority.LOW)
        },
        init=False,
    )
    _raised: _Lane = field(factory=_Lane, init=False)
    _low: LazyHeap[_Entry] = field(init=False)
    _orders: count[int] = field(factory=lambda: count(1), init=False)
    _had_raised: dict[Served, None] = field(factory=lambda: dict[Served, None](), init=False)
    """Kinds of workers whose last run was a raised one; empty when there are none."""

    def __attrs_post_init__(self) -> None:
        """Refuse a capacity below one."""
        if self.capacity < 1:
            raise ValueError(f"ReadyQueue.capacity is {self.capacity!r}; it must be at least 1")
        self._low = LazyHeap(lambda entry: entry.lane is self._lanes[Priority.LOW])

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._entries

    def put(self, ready: ReadyRun, now: Micros) -> bool:
        """Add a run; True if it is in the queue now and was not before.

        False if it was there, or if the queue is full of runs that rank no lower (then
        `overflowed` is set).
        """
        if ready.run_id in self._entries:
            return False
        entry = _Entry(ready, key_of(ready), next(self._orders))
        self._entries[ready.run_id] = entry
        lane = self._lanes[ready.priority]
        lane.add(entry)
        if ready.priority is Priority.LOW:
            self._low.push(ready.ready_at, entry.order, entry)
        self._raise_low(now)
        if len(self._entries) > self.capacity:
            self.overflowed = True
            self._discard(self._lowest())
        assert len(self._entries) <= self.capacity, "the queue is over its capacity"
        return entry.lane is not None

    def remove(self, run_id: str) -> bool:
        """Take a run out, for it is no longer ready; True if it was in the queue."""
        entry = self._entries.get(run_id)
        if entry is None:
            return False
        self._discard(entry)
        return True

    def take(self, served: Served, now: Micros) -> ReadyRun | None:
        """Take out the run that a worker of this kind is given next; None if there is none."""
        self._raise_low(now)
        lanes = list(self._lanes.values())
        if self._raised.parties:
            lanes.insert(len(lanes) if served in self._had_raised else 0, self._raised)
        for lane in lanes:
            entry = lane.first(served)
            if entry is not None:
                if lane is self._raised:
                    self._had_raised[served] = None
                else:
                    self._had_raised.pop(served, None)
                lane.serve(entry)
                self._forget(entry, lane)
                return entry.run
        return None

    def ready_before(self, before: Micros) -> list[ReadyRun]:
        """List the runs that are ready since before then, as they were put in."""
        runs = (entry.run for entry in self._entries.values())
        return [run for run in runs if run.ready_at < before]

    def run_ids(self) -> list[str]:
        """List the runs in the queue, in the order in which they were put in."""
        return list(self._entries)

    def _raise_low(self, now: Micros) -> None:
        latest = now - self.low_wait // timedelta(microseconds=1)
        low = self._lanes[Priority.LOW]
        while (entry := self._low.first()) is not None and entry.run.ready_at <= latest:
            low.discard(entry)
            self._low.forget()
            self._raised.add(entry)

    def _lowest(self) -> _Entry:
        """Return the run to drop: of the least urgent lane the one that is ready shortest.

        Raised runs may fill half of the room, as they are given half of the turns; so neither
        they nor the others can keep the rest out of the queue.
        """
        high, normal, low = self._lanes.values()
        raised_first = 2 * len(self._raised) > self.capacity
        order = (
            (low, self._raised, normal, high) if raised_first else (low, normal, high, self._raised)
        )
        for lane in order:
            entry = lane.newest.first()
            if entry is not None:
                return entry
        raise AssertionError("a queue over its capacity is not empty")

    def _discard(self, entry: _Entry) -> None:
        lane = entry.lane
        assert lane is not None, f"run {entry.run.run_id} has left the queue already"
        lane.discard(entry)
        self._forget(entry, lane)

    def _forget(self, entry: _Entry, lane: _Lane) -> None:
        del self._entries[entry.run.run_id]
        if lane is self._lanes[Priority.LOW]:
            self._low.forget()
        if not self._raised.parties:
            self._had_raised.clear()
