"""The order of things in a run whose code has several branches: one at a time, by the journal.

Trio decides at random which of two ready tasks steps first, so which came first must never be read
from the scheduler. Only while nothing of the run can move (`Tracks.quiet`) does the sequencer act,
and then it does exactly one thing, chosen by the journal:

1. deliver what has the lowest seq among the recorded results that are waited for and the
   signals (cancellation, timeouts); a held call that can take an older leftover takes it first;
2. give a held call a leftover entry of its address from another branch;
3. begin calls the journal knows already, and sleeps and waits;
4. begin the held tasks and children, if no recorded one is left over; if one is and nothing can
   take it any more, the code has diverged from its journal;
5. park, if everything left is an open wait.

Live results go the same way, so two that complete in one scheduler pass race as in replay. The
proof of the rule is in `tests/unit/worker/test_replay_properties.py`.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

import trio
from attrs import Factory, define

from ._slots import RunEvicted, Slot
from ._timeouts import DurableTimeout

if TYPE_CHECKING:
    from ._execution import Execution

LAST: Final = 1 << 62
"""Stands for the seq of what has none: an operation that was refused."""


@define(eq=False)
class Sequencer:
    """Holds the calls that wait, and chooses what happens next."""

    execution: Execution
    ready: list[tuple[int, int, Slot | DurableTimeout | None]] = Factory(
        lambda: list[tuple[int, int, Slot | DurableTimeout | None]]()
    )
    held: list[Slot] = Factory(lambda: list[Slot]())
    _tick: int = 0
    _task: trio.lowlevel.Task | None = None
    _parked_at: int = -1

    def close(self) -> None:
        """Drop everything; the execution has ended."""
        self.ready.clear()
        self.held.clear()
        del self.execution

    def push(self, seq: int, slot: Slot | DurableTimeout | None) -> None:
        """Add a result that can be delivered, or a signal: a timeout, None: the cancellation."""
        self._tick += 1
        heapq.heappush(self.ready, (seq, self._tick, slot))

    def take_signal(self, before: int | None) -> tuple[int, DurableTimeout | None] | None:
        """Take the next signal that can be delivered out; of those up to seq `before`, if given.

        For code with one branch, of which nothing but signals is ever here.
        """
        while self.ready and (before is None or self.ready[0][0] < before):
            seq, _tick, signal = heapq.heappop(self.ready)
            if not isinstance(signal, Slot) and (signal is None or not signal.dead):
                return seq, signal
        return None

    def hold(self, slot: Slot) -> None:
        """Add a call that has no result yet."""
        self.held.append(slot)

    def kick(self) -> None:
        """Look again soon; cheap, and safe to call from an instrument's hook."""
        task = self._task
        if task is not None:
            self._task = None
            trio.lowlevel.reschedule(task)

    async def run(self) -> None:
        """Sequence the branches until cancelled; calls begin in a nursery of this task."""
        async with trio.open_nursery() as nursery:
            while True:
                while self.execution.tracks.quiet and self._step(nursery):
                    pass
                self._task = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _step(self, nursery: trio.Nursery) -> bool:
        """Do the one next thing; False when there is nothing to do until something happens."""
        execution = self.execution
        if execution.evicted:
            return False
        self._take_child_ends()
        while self.ready and (dead := self.ready[0][2]) is not None and dead.dead:
            heapq.heappop(self.ready)
        if self.ready:
            if not isinstance(self.ready[0][2], Slot) and self._match_leftover(self.ready[0][0]):
                return True
            _seq, _tick, slot = heapq.heappop(self.ready)
            execution.deliver(slot)
            return True
        if self._match_leftover():
            return True
        if execution.frozen is not None:
            return False
        return self._begin_known(nursery) or self._begin_new(nursery) or self._park(nursery)

    def _take_child_ends(self) -> None:
        """Give held waits the ends of their children that came meanwhile.

        They take their turn by seq, as they will in a replay, in which they are known at the call.
        """
        for slot in list(self.held):
            if slot.child is None or slot.record is not None:
                continue
            record = self.execution.replica.open_ended(slot.call, slot.child)
            if record is not None:
                slot.attach(record)
                self.held.remove(slot)
                self.push(record.resolved_at, slot)

    def _match_leftover(self, before: int | None = None) -> bool:
        for slot in self.held:
            if slot.record is not None:
                continue
            record = self.execution.replica.take_leftover(slot.call.address, before)
            if record is not None:
                slot.attach(record)
                if slot.resolved:
                    self.held.remove(slot)
                    self.push(record.resolved_at, slot)
                return True
        return False

    def _begin_known(self, nursery: trio.Nursery) -> bool:
        known = [slot for slot in self.held if slot.record is not None or slot.free]
        for slot in known:
            self._begin(slot, nursery)
        return bool(known)

    def _begin_new(self, nursery: trio.Nursery) -> bool:
        if not self.held:
            return False
        execution = self.execution
        if execution.replica.unconsumed:
            if not (execution.busy or self._waiting()):
                execution.diverge(list(self.held))
            return False
        for slot in list(self.held):
            self._begin(slot, nursery)
        return True

    def _begin(self, slot: Slot, nursery: trio.Nursery) -> None:
        self.held.remove(slot)
        slot.began = True
        if slot.record is None:
            slot.attach(self.execution.replica.open(slot.call))
        slot.scope = trio.CancelScope()
        if slot.child is not None and slot.record is not None and slot.record.resolution is None:
            # From now on, not only once the start has run: the end may come before that.
            self.execution.await_child(slot.child, slot.record)
        self.execution.begun += 1
        nursery.start_soon(self._run_start, slot, slot.scope)

    async def _run_start(self, slot: Slot, scope: trio.CancelScope) -> None:
        execution = self.execution
        try:
            with scope:
                if slot.dead:
                    return
                if execution.timeouts.armed and not slot.free:
                    await execution.begin_timeouts()
                await slot.start(slot)
        except RunEvicted:
            return
        except Exception as error:  # noqa: BLE001  (the code that made the call is given it)
            slot.error = error
            self.push(LAST, slot)
        finally:
            execution.begun -= 1
            if slot.dead and slot.record is not None and slot.record.held:
                # What was given up while its start was under way to the server has begun after all.
                execution.give_up(slot.call)
            self.kick()
            execution.check_frozen()

    def _waiting(self) -> list[Slot]:
        return [slot for slot in self.execution.slots if slot.open_wait]

    def _on_its_way(self) -> bool:
        """Whether a call began for which the server opened no wait: its result was there already.

        So it is with a child that ended before its wait was met. The code goes on with that result,
        not with one of the open waits; a park would leave it without a claim.
        """
        return any(slot.began and not slot.open_wait for slot in self.execution.slots)

    def _park(self, nursery: trio.Nursery) -> bool:
        """Give the claim back when every branch waits for something the server watches."""
        execution = self.execution
        seq = execution.replica.seq
        if execution.busy or execution.replica.claim is None or self._parked_at == seq:
            return False
        if not self._waiting() or self._on_its_way():
            return False
        self._parked_at = seq
        execution.begun += 1
        nursery.start_soon(self._submit_park)
        return False

    async def _submit_park(self) -> None:
        """Give the claim back, unless something has moved since that was decided."""
        execution = self.execution
        try:
            waiting = tuple(slot.call for slot in self._waiting())
            still = execution.tracks.quiet and execution.begun == 1 and not self.ready
            if waiting and still and not self._on_its_way():
                await execution.park(waiting)
            else:
                self._parked_at = -1
        finally:
            execution.begun -= 1
            self.kick()
