"""What the connected workers can still take, and which parked runs they keep warm.

Workers that serve the same are one *kind*; a fleet has many workers and few kinds. Each kind keeps
a heap of its workers by free slots, so that the freest is found at once. A worker that *pulls*
takes runs from a message queue by itself: it is handed only those that it keeps warm.

Invariant: `0 <= held`; a worker is handed a run only while `held < slots`.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

from attrs import Factory, define, field

from ._served import QueueKey, Served

WARM_MAX: Final = 10_000
"""Warm runs remembered per worker, ten times what a worker keeps by default."""

_SLACK: Final = 32


@define(eq=False)
class _Worker:
    id: str
    order: int
    kind: _Kind
    slots: int
    held: int
    pulls: bool
    warm: dict[str, None] = Factory(lambda: dict[str, None]())

    @property
    def free(self) -> int:
        return max(0, self.slots - self.held)

    @property
    def open(self) -> int:
        """How many more runs it may be handed that it does not keep warm."""
        return 0 if self.pulls else self.free


@define(eq=False)
class _Kind:
    """The workers that serve the same."""

    served: Served
    workers: dict[str, _Worker] = Factory(lambda: dict[str, _Worker]())
    _heap: list[tuple[int, int, _Worker]] = Factory(lambda: list[tuple[int, int, _Worker]]())

    def changed(self, worker: _Worker) -> None:
        """File a worker under its new number of free slots; the old entry is seen to be stale."""
        if worker.open:
            heappush(self._heap, (-worker.open, worker.order, worker))
        if len(self._heap) > 2 * len(self.workers) + _SLACK:
            self._heap = [(-w.open, w.order, w) for w in self.workers.values() if w.open]
            heapify(self._heap)

    def freest(self) -> _Worker | None:
        """Return the worker with the most free slots, or None if there is no free slot."""
        heap = self._heap
        while heap:
            rank, _, worker = heap[0]
            if worker.open == -rank and self.workers.get(worker.id) is worker:
                return worker
            heappop(heap)
        return None


@define(eq=False)
class Slots:
    """Capacity and warm runs of the connected workers. O(log n) in workers, times the kinds."""

    warm_max: int = WARM_MAX
    _workers: dict[str, _Worker] = field(factory=lambda: dict[str, _Worker](), init=False)
    _kinds: dict[Served, _Kind] = field(factory=lambda: dict[Served, _Kind](), init=False)
    _kinds_by_key: dict[QueueKey, dict[Served, _Kind]] = field(
        factory=lambda: dict[QueueKey, dict[Served, _Kind]](), init=False
    )
    _warm: dict[str, _Worker] = field(factory=lambda: dict[str, _Worker](), init=False)
    _orders: count[int] = field(factory=lambda: count(1), init=False)

    def register(
        self,
        worker_id: str,
        serves: frozenset[tuple[str, str]],
        pools: frozenset[str],
        slots: int,
        *,
        namespace: str = "default",
        held: int | None = None,
        pulls: bool = False,
    ) -> Served:
        """Make a worker known, or change what is known of it; returns what it serves.

        Args:
            worker_id: the worker.
            serves: pairs of workflow name and version.
            pools: the pools that it works for.
            slots: runs that it can hold at once; 0 while it takes no more.
            namespace: the namespace that it belongs to.
            held: runs that it holds now; None: as before, or none if it is new.
            pulls: it takes runs from a message queue by itself.

        Raises:
            ValueError: `slots` or `held` is negative.

        """
        if slots < 0 or (held or 0) < 0:
            raise ValueError(f"worker {worker_id}: slots={slots}, held={held}; neither may be < 0")
        served = Served.of(serves, pools=pools, namespace=namespace)
        kind = self._kind(served)
        worker = self._workers.get(worker_id)
        if worker is None:
            worker = _Worker(worker_id, next(self._orders), kind, slots, held or 0, pulls)
            self._workers[worker_id] = worker
        else:
            if worker.kind is not kind:
                self._leave_kind(worker)
            worker.kind, worker.slots, worker.pulls = kind, slots, pulls
            worker.held = worker.held if held is None else held
        kind.workers[worker_id] = worker
        kind.changed(worker)
        return served

    def unregister(self, worker_id: str) -> bool:
        """Forget a worker, its slots and its warm runs; False if it was not known."""
        worker = self._workers.pop(worker_id, None)
        if worker is None:
            return False
        self._leave_kind(worker)
        for run_id in worker.warm:
            del self._warm[run_id]
        return True

    def reserve(self, key: QueueKey, *, warm: str | None = None) -> str | None:
        """Take a slot for a run with this key; returns the worker, or None if nobody has one.

        The worker `warm` is preferred (it keeps the run in memory), else the one with the most free
        slots, else the one that is known longest.
        """
        worker = self._choose(key, warm)
        if worker is None:
            return None
        assert worker.free > 0, f"worker {worker.id} has no free slot"
        worker.held += 1
        worker.kind.changed(worker)
        return worker.id

    def reserve_on(self, worker_id: str) -> bool:
        """Take a slot of this worker; False if it is not known or has none that is free."""
        worker = self._workers.get(worker_id)
        if worker is None or not worker.free:
            return False
        worker.held += 1
        worker.kind.changed(worker)
        return True

    def reserve_puller(self, key: QueueKey) -> str | None:
        """Take a slot of the freest worker that pulls and serves this key; None: there is none."""
        kinds = self._kinds_by_key.get(key, {}).values()
        pullers = [one for kind in kinds for one in kind.workers.values() if one.pulls and one.free]
        if not pullers:
            return None
        worker = min(pullers, key=lambda one: (-one.free, one.order))
        worker.held += 1
        worker.kind.changed(worker)
        return worker.id

    def set_pulls(self, worker_id: str, pulls: bool) -> Served | None:
        """Note whether a worker pulls from now on; returns what it serves, None if not known."""
        worker = self._workers.get(worker_id)
        if worker is None:
            return None
        worker.pulls = pulls
        worker.kind.changed(worker)
        return worker.kind.served

    def release(self, worker_id: str) -> bool:
        """Give a slot back; False (and no change) if the worker is unknown or holds nothing."""
        worker = self._workers.get(worker_id)
        if worker is None or not worker.held:
            return False
        worker.held -= 1
        worker.kind.changed(worker)
        return True

    def free(self, worker_id: str) -> int:
        """Return how many more runs the worker can take; 0 if it is not known."""
        worker = self._workers.get(worker_id)
        return 0 if worker is None else worker.free

    def served_by(self, worker_id: str) -> Served | None:
        """Return what the worker serves; None if it is not known."""
        worker = self._workers.get(worker_id)
        return None if worker is None else worker.kind.served

    def served(self) -> set[QueueKey]:
        """Return every key that some connected worker serves, with or without a free slot."""
        return set(self._kinds_by_key)

    def is_served(self, key: QueueKey) -> bool:
        """Tell whether some connected worker serves this key, with or without a free slot."""
        return key in self._kinds_by_key

    def kinds(self) -> list[Served]:
        """List the kinds of workers, in the order in which they came."""
        return list(self._kinds)

    def has_room(self, served: Served) -> bool:
        """Tell whether a worker of this kind has a free slot for a run that it is handed."""
        kind = self._kinds.get(served)
        return kind is not None and kind.freest() is not None

    def workers(self) -> list[str]:
        """List the connected workers, in the order in which they came."""
        return list(self._workers)

    def keep_warm(self, run_id: str, worker_id: str) -> bool:
        """Note that a worker keeps a parked run in memory; False if the worker is not known.

        Past `warm_max` the worker's oldest is forgotten; that costs a replay, nothing else.
        """
        worker = self._workers.get(worker_id)
        if worker is None:
            return False
        self.forget_warm(run_id)
        worker.warm[run_id] = None
        self._warm[run_id] = worker
        if len(worker.warm) > self.warm_max:
            self.forget_warm(next(iter(worker.warm)))
        return True

    def warm_holder(self, run_id: str) -> str | None:
        """Return the connected worker that keeps the run in memory, or None."""
        worker = self._warm.get(run_id)
        return None if worker is None else worker.id

    def forget_warm(self, run_id: str) -> bool:
        """Note that no worker keeps the run in memory; False if none did."""
        worker = self._warm.pop(run_id, None)
        if worker is None:
            return False
        del worker.warm[run_id]
        return True

    def _choose(self, key: QueueKey, warm: str | None) -> _Worker | None:
        if warm is not None:
            worker = self._workers.get(warm)
            if worker is not None and worker.free and worker.kind.served.serves(key):
                return worker
        best: _Worker | None = None
        for kind in self._kinds_by_key.get(key, {}).values():
            worker = kind.freest()
            if worker is not None and (
                best is None or (-worker.free, worker.order) < (-best.free, best.order)
            ):
                best = worker
        return best

    def _kind(self, served: Served) -> _Kind:
        kind = self._kinds.get(served)
        if kind is None:
            kind = self._kinds[served] = _Kind(served)
            for key in served.queue_keys():
                self._kinds_by_key.setdefault(key, {})[served] = kind
        return kind

    def _leave_kind(self, worker: _Worker) -> None:
        kind = worker.kind
        del kind.workers[worker.id]
        if kind.workers:
            return
        del self._kinds[kind.served]
        for key in kind.served.queue_keys():
            kinds = self._kinds_by_key[key]
            del kinds[kind.served]
            if not kinds:
                del self._kinds_by_key[key]
