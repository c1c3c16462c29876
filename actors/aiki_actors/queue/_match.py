"""Who gets which run: the ready queue and the workers' slots put together.

Every method changes both sides and returns the assignments that follow, for the caller to carry
out. A slot is taken in the same step in which a run leaves the queue, so that there is nothing to
undo between the two.

Invariant: after every method no run stands in the queue that a free slot could serve, those of
workers that pull apart. Therefore a run that becomes ready while a slot for it is free overtakes
nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import Factory, define, frozen

from aiki_actors.engine import Micros
from aiki_actors.storage import ReadyRun

from ._ready import ReadyQueue
from ._served import QueueKey, Served, key_of
from ._slots import Slots


@frozen
class Assignment:
    """Give this run to this worker; a slot of it is taken.

    Attributes:
        warm: it has the run in memory.
        cooled: the worker that had it in memory, if that is another one.
    """

    run: ReadyRun
    worker_id: str
    warm: bool
    cooled: str | None = None


@define(eq=False)
class Matcher:
    """The queue and the slots; change either only through this, or the invariant is lost."""

    queue: ReadyQueue = Factory(ReadyQueue)
    slots: Slots = Factory(Slots)

    def run_ready(self, run: ReadyRun, now: Micros) -> list[Assignment]:
        """Hand a ready run out, or keep it until a slot is free; nothing if it is kept already."""
        if run.run_id in self.queue:
            return []
        assignment = self._assign(run)
        if assignment is not None:
            return [assignment]
        self.queue.put(run, now)
        return []

    def runs_ready(self, runs: Iterable[ReadyRun], now: Micros) -> list[Assignment]:
        """Take in many at once; those that rank higher come first, whatever their order here."""
        for run in runs:
            self.queue.put(run, now)
        return self._match(self.slots.kinds(), now)

    def run_gone(self, run_id: str) -> bool:
        """Take a run out that is no longer ready; True if it stood in the queue."""
        return self.queue.remove(run_id)

    def worker_joined(
        self,
        worker_id: str,
        serves: frozenset[tuple[str, str]],
        pools: frozenset[str],
        slots: int,
        now: Micros,
        *,
        namespace: str = "default",
        held: int | None = None,
        pulls: bool = False,
    ) -> list[Assignment]:
        """Make a worker known, or change what is known of it (see `Slots.register`)."""
        served = self.slots.register(
            worker_id, serves, pools, slots, namespace=namespace, held=held, pulls=pulls
        )
        return self._match([served], now)

    def worker_left(self, worker_id: str) -> bool:
        """Forget a worker; what it holds is the caller's to queue again. False if not known."""
        return self.slots.unregister(worker_id)

    def worker_pulls(self, worker_id: str, now: Micros, *, pulls: bool) -> list[Assignment]:
        """Note whether a worker takes runs from a message queue by itself."""
        served = self.slots.set_pulls(worker_id, pulls)
        return [] if served is None or pulls else self._match([served], now)

    def late(self, before: Micros) -> list[Assignment]:
        """Hand out what has waited since before then although a worker that pulls has room for it.

        That worker should have found it by itself: the message, or its way to the queue, is lost.
        """
        found: list[Assignment] = []
        full: set[QueueKey] = set()  # a long queue has few keys, and asks about each once
        for run in self.queue.ready_before(before):
            key = key_of(run)
            worker_id = None if key in full else self.slots.reserve_puller(key)
            if worker_id is None:
                full.add(key)
            else:
                self.queue.remove(run.run_id)
                holder = self.slots.warm_holder(run.run_id)
                self.slots.forget_warm(run.run_id)
                found.append(Assignment(run, worker_id, warm=False, cooled=holder))
        return found

    def slot_freed(self, worker_id: str, now: Micros) -> list[Assignment]:
        """Give a slot of a worker back, because a run of it ended, parked or was refused."""
        served = self.slots.served_by(worker_id)
        if served is None or not self.slots.release(worker_id):
            return []
        return self._match([served], now)

    def _match(self, kinds: list[Served], now: Micros) -> list[Assignment]:
        """Fill the free slots of these kinds of workers, one run for each kind in turn."""
        found: list[Assignment] = []
        while kinds:
            unfinished: list[Served] = []
            for served in kinds:
                run = self.queue.take(served, now) if self.slots.has_room(served) else None
                if run is not None:
                    assignment = self._assign(run)
                    assert assignment is not None, f"no slot for {run.run_id}, but there was room"
                    found.append(assignment)
                    unfinished.append(served)
            kinds = unfinished
        return found

    def _assign(self, run: ReadyRun) -> Assignment | None:
        holder = self.slots.warm_holder(run.run_id)
        worker_id = self.slots.reserve(key_of(run), warm=holder)
        if worker_id is None:
            return None
        # Whoever executes the run now is the only one whose memory of it is good.
        self.slots.forget_warm(run.run_id)
        warm = worker_id == holder
        return Assignment(run, worker_id, warm, None if warm else holder)
