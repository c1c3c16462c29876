"""One execution of a workflow's code: where replay meets the journal.

Every durable operation is a call with an address, a branch and an index. `perform` finds its record
(then the recorded result is returned) or lets it happen and be journaled.

* With one branch, a recorded result is returned at once; an unrecorded call happens in the branch
  itself, unless a recorded task or child is left over, which is a divergence.
* With more branches every call waits, and the sequencer (`_sequencer.py`) chooses the next thing.
* A cancellation or a durable timeout is a signal, delivered in its place among the results, by seq.
* Eviction is not cancellation: after it every operation raises `RunEvicted`, shielded or not, and
  nothing reaches the journal.

Length: the fields and the two ways of making a call belong together; what is said to the server is
in `_speaking.py`, and what is chosen next in `_sequencer.py`.

Invariant: entries come in by `feed` alone, in order of seq, whichever side they came from.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final

import outcome
import trio
from attrs import Factory, define

from aiki_actors import engine as e
from aiki_actors.faults import fault_point
from aiki_sdk import AikiError

from ._branches import Branch, BranchTracker, Tracks
from ._divergence import Sight, calling_line, divergence, waiting_line
from ._port import ServerPort
from ._replica import Record, Replica
from ._sequencer import Sequencer
from ._slots import RunEvicted, Slot, Start
from ._speaking import Speaking
from ._timeouts import DurableTimeout, Timeouts

if TYPE_CHECKING:
    from aiki_sdk import AnyTask

REPLAY_STRIDE: Final = 64
"""Recorded results returned between two checkpoints: a long replay must not block the loop."""


_LEFT: Final[frozenset[type[e.Body]]] = frozenset(
    {
        e.ClaimReleased,
        e.ClaimLost,
        e.RunStalled,
        e.RunAttemptFailed,
        e.RunCompleted,
        e.RunContinued,
        e.RunFailed,
        e.RunCancelled,
    }
)
"""Entries after which nothing of this execution counts any more."""

_NOTICED: Final = _LEFT | {
    e.CancelRequested,
    e.TimeoutReached,
    e.RunPaused,
    e.RunResumed,
    e.RunClaimed,
    e.RunParked,
}
"""Entries that mean more to an execution than a record: those for which `_notice` has a case.

The most frequent ones have none, and need not be matched against all cases to find that out.
"""

TaskCaller = Callable[["Execution", Branch, "AnyTask", tuple[Any, ...], Mapping[str, Any]], Any]


@define(eq=False)
class Execution(Speaking):
    """The state of one run's code in this worker; used by the tasks of one Trio loop only.

    Attributes:
        begun: calls that happen right now (a task runs, a command is on its way).
        multi: the code has, or had just now, more than one branch.
        frozen: why nothing new may begin (pause, shutdown); None: it may.
        gone: the run ended, or its claim was taken away: nothing is left to be said.
        released: why the claim is to be given back after an eviction; None: it is not.
        cancelled_at: seq of the cancellation, once the code was told.
        continued: what the run goes on as, once its code asked for that.
        diverged: why code and journal do not fit together, once they do not.
        epoch: epoch of the last claim that was noticed.
        deliveries: results given to the code so far; the same number at the same point of a replay.
        last_at: time of the last result the code was given; what `run.now()` says.
        function: the workflow's function, for the report of a divergence.
        background: runs something beside the code, for as long as it is executed here.

    """

    run_id: str
    port: ServerPort
    tracker: BranchTracker
    call: TaskCaller
    on_branched: Callable[[], None]
    on_parked: Callable[[int], None]
    replica: Replica = Factory(Replica)
    tracks: Tracks = Factory(Tracks)
    scope: trio.CancelScope = Factory(trio.CancelScope)
    cancel_scope: trio.CancelScope = Factory(trio.CancelScope)
    slots: dict[Slot, None] = Factory(lambda: dict[Slot, None]())
    begun: int = 0
    multi: bool = False
    evicted: bool = False
    gone: bool = False
    frozen: str | None = None
    released: str | None = None
    cancelled_at: int | None = None
    continued: e.RunCreated | None = None
    diverged: AikiError | None = None
    last_at: e.Micros = e.Micros(0)
    loaded_seq: int = 0
    epoch: int = 0
    sequencer: Sequencer = Factory(Sequencer, takes_self=True)
    timeouts: Timeouts = Factory(Timeouts, takes_self=True)
    deliveries: int = 0
    function: Callable[..., Any] | None = None
    background: Callable[[Callable[[], Awaitable[None]]], None] | None = None
    _abandoned: list[e.Call] = Factory(lambda: list[e.Call]())
    _claimed: trio.Event | None = None
    _thawed: trio.Event | None = None
    _gap: trio.Event | None = None
    _parked: trio.Event | None = None
    _replayed: int = 0

    @property
    def busy(self) -> bool:
        """Whether something of the run happens right now outside its code."""
        return self.begun > 0

    @property
    def replaying(self) -> bool:
        """Whether recorded results that the code has not asked for yet are left."""
        return self.replica.unconsumed > 0

    # -- what the server says ---------------------------------------------------------------

    def load(self, entries: tuple[e.Entry, ...]) -> None:
        """Take in what happened before this execution began; nothing waits for it yet."""
        cancel: int | None = None
        for entry in self.replica.apply(entries):
            if isinstance(entry.body, e.RunPaused):
                self.frozen = "paused"
            elif isinstance(entry.body, e.RunResumed | e.CancelRequested | e.RunRetried):
                self.frozen = None  # a cancellation lifts a pause; so did the end before a retry
            if isinstance(entry.body, e.CancelRequested):
                cancel = entry.seq
        if cancel is not None:
            self.sequencer.push(cancel, None)
        self.replica.touched.clear()
        self.loaded_seq = self.replica.seq
        self.epoch = 0 if self.replica.claim is None else self.replica.claim.epoch
        self.last_at = self.replica.created_at

    def feed(self, entries: tuple[e.Entry, ...]) -> None:
        """Take journal entries in, from whichever side they came, and let calls go on."""
        for entry in self.replica.apply(entries):
            if self.replica.touched:
                self.pass_on()
            if type(entry.body) in _NOTICED:
                self._notice(entry.body, entry.seq)
        if self.frozen is not None:
            self.check_frozen()  # now: what came with a pause may have lifted it again
        if self.multi:
            self.sequencer.kick()
        if self._gap is not None:
            self._gap.set()
            self._gap = None

    def pass_on(self) -> None:
        """Hand resolved records to the calls that wait for them."""
        for record in self.replica.take_touched():
            slot = record.slot
            if slot is None or slot.dead:
                continue
            if record.resolution is None:
                self._restart(slot)
            elif slot.task is None:
                continue  # `start` runs in the branch itself and sees the resolution
            elif self.multi:
                self.sequencer.push(record.resolved_at, slot)
            else:
                self.deliver(slot)

    def _restart(self, slot: Slot) -> None:
        """Let a task call go on whose retry is due (its `start` waits for the slot's task)."""
        event = slot.retry_due
        if event is not None and not event.is_set():
            # The attempt begins here, not when Trio resumes it: else the run might park before.
            self.begun += 1
            event.set()

    def _notice(self, body: e.Body, seq: int) -> None:
        match body:
            case e.CancelRequested():
                if self.frozen == "paused":
                    self.thaw()
                if self.multi or self._has_signal():
                    self.sequencer.push(seq, None)
                else:
                    self.deliver_cancel(seq)
            case e.TimeoutReached():
                self.timeouts.reached(body.call, seq)
            case e.RunPaused():
                self.frozen = self.frozen or "paused"
            case e.RunResumed():
                if self.frozen == "paused":
                    self.thaw()
            case e.RunClaimed():
                self.epoch = body.epoch
                if self._claimed is not None:
                    self._claimed.set()
            case e.RunParked():
                fault_point("run.parked")
                self.on_parked(self.epoch)
            case _:  # one of _LEFT
                self.gone = True
                self.evict()

    # -- leaving ----------------------------------------------------------------------------

    def evict(self) -> None:
        """Leave memory: end the code without letting anything it does count any more."""
        if self.evicted:
            return
        self.evicted = True
        for event in (self._claimed, self._thawed, self._gap):
            if event is not None:
                event.set()
        self.scope.cancel()
        for slot in self.slots:
            # Whoever still waits or works is shielded: the scope did not reach it.
            if slot.scope is not None:
                slot.scope.cancel()
            if slot.task is not None:
                slot.dead = True
                task, slot.task = slot.task, None
                trio.lowlevel.reschedule(task, outcome.Error(RunEvicted()))

    def fall_back(self, reason: str) -> None:
        """Give the claim back, to begin again from the journal as it is."""
        self.released = reason
        self.evict()

    def let_go(self) -> None:
        """Drop what points back here, so that an ended execution is freed without the collector."""
        self.on_branched, self.on_parked, self.background = _nothing, _no_epoch, None
        self.slots.clear()
        self.replica.records.clear()
        self.sequencer.close()

    def freeze(self, reason: str) -> None:
        """Begin nothing new; once nothing happens any more, leave and give the claim back."""
        self.frozen = reason
        self.check_frozen()

    def thaw(self) -> None:
        """Take a freeze back."""
        self.frozen = None
        if self._thawed is not None:
            self._thawed.set()
        self.sequencer.kick()

    def check_frozen(self) -> None:
        """Leave if frozen and idle. A parked run holds no claim and may stay."""
        if self.frozen is not None and not self.busy and self.replica.claim is not None:
            self.released = self.frozen
            self.evict()

    def diverge(self, slots: list[Slot]) -> None:
        """Stop before calls that the journal forbids."""
        calls = [
            (slot.call, waiting_line(slot.task) if slot.task else calling_line()) for slot in slots
        ]
        self.diverged = divergence(self.run_id, self.replica, calls, Sight(self.function))
        self.evict()

    # -- what the code does -----------------------------------------------------------------

    def call_task(
        self, branch: Branch, task: AnyTask, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """Make a durable task call (see `_attempts.py`)."""
        coroutine: Coroutine[Any, Any, Any] = self.call(self, branch, task, args, kwargs)
        return coroutine

    def branched(self) -> None:
        """Hear that the code has a second branch: from now on the sequencer orders it."""
        self.multi = True
        self.on_branched()

    def quiet(self) -> None:
        """Hear that no branch can move by itself."""
        self.sequencer.kick()

    def perform(
        self, call: e.Call, start: Start, *, free: bool = False, child: str | None = None
    ) -> Coroutine[Any, Any, Record]:
        """Make one durable call and return its record, resolved.

        Args:
            call: which call this is.
            start: makes it happen if it is not recorded.
            free: it may happen although recorded tasks are left over (sleeps and waits).
            child: the child whose end is its result, which the journal may have already.

        """
        if self.evicted:
            raise RunEvicted
        if self.multi and self.tracks.live == 1 and not self.slots and not self.sequencer.ready:
            self.multi = False
            self.tracker.unfollow(self)
        record = self.replica.take(call)
        if record is None and call in self.replica.records:
            call = self.replica.free_name(call)
            record = self.replica.take(call)
        if record is None and child is not None:
            record = self.replica.open_ended(call, child)
        return self.resolve(Slot(call, record, start, free, child=child))

    async def resolve(self, slot: Slot) -> Record:
        """Bring a call to its result; of the only branch, after the signals that come before it."""
        if self.multi:
            return await self._wait_turn(slot)
        if slot.record is None:
            before = self.sequencer.ready[0][0] if self.sequencer.ready else None
            slot.record = self.replica.take_leftover(slot.call.address, before)
        try:
            # One function on purpose: each `await` between code and loop is paid at each wait.
            record = slot.record
            if self.sequencer.ready:
                await self._signals_first(record)
            if record is not None and record.resolution is not None:
                fault_point("run.replayed")
                await self._replay_checkpoint()
            elif record is None and not slot.free and self.replica.unconsumed:
                self.diverge([slot])
                await trio.lowlevel.checkpoint()
                raise RunEvicted
            else:
                record = await self._happen(slot, record)
                if slot.signalled:
                    await trio.lowlevel.checkpoint_if_cancelled()
                    await self._signals_first(record)
        except trio.Cancelled:
            self._give_back(slot)
            raise
        self.deliveries += 1
        self.last_at = record.at
        return record

    def _give_back(self, slot: Slot) -> None:
        """Give up what a call holds that was cancelled before the code was given its result."""
        record = slot.record
        if record is None or self.evicted:
            return
        if record.waiting or isinstance(record.resolution, e.EventConsumed):
            self.give_up(record.call)

    async def _happen(self, slot: Slot, record: Record | None) -> Record:
        """Let a call of the only branch happen, in that branch."""
        if self.frozen is not None:
            await self._wait_thawed()
        await trio.lowlevel.checkpoint_if_cancelled()
        record = slot.attach(record or self.replica.open(slot.call))
        slot.began = True
        self.slots[slot] = None
        self.begun += 1
        try:
            try:
                if self.timeouts.armed and not slot.free:
                    await self.begin_timeouts()
                await slot.start(slot)
            finally:
                self.begun -= 1
            if record.resolution is None:
                self.check_frozen()
                if self.sequencer.ready:
                    await self._signals_first(record)
                await self._block(slot)
        finally:
            self._leave(slot)
        if self.evicted:
            raise RunEvicted
        return record

    async def _wait_turn(self, slot: Slot) -> Record:
        """Wait until the sequencer delivers the call's result."""
        if slot.record is not None:
            slot.attach(slot.record)
        if slot.resolved and slot.record is not None:
            fault_point("run.replayed")
            self.sequencer.push(slot.record.resolved_at, slot)
        else:
            self.sequencer.hold(slot)
        self.slots[slot] = None
        try:
            await self._block(slot)
        finally:
            self._leave(slot)
        if self.evicted:
            raise RunEvicted
        if slot.error is not None:
            raise slot.error
        assert slot.record is not None, "a delivered call has a record"
        self.last_at = slot.record.at
        return slot.record

    async def _block(self, slot: Slot) -> None:
        def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
            slot.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        slot.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(give_up)

    def _leave(self, slot: Slot) -> None:
        """Take a call out, delivered or given up; what it holds open is given back."""
        del self.slots[slot]
        record = slot.record
        if record is not None:
            record.slot = None
        if slot in self.sequencer.held:
            self.sequencer.held.remove(slot)
        if slot.delivered or (not self.multi and slot.resolved):
            return
        slot.dead = True
        if slot.scope is not None:
            slot.scope.cancel()
        if self.evicted or record is None:
            return
        if record.held or slot.began:
            self._abandoned.append(slot.call)

    def give_up(self, call: e.Call) -> None:
        """Say with the next word to the server that nobody waits for this any more."""
        if not self.evicted and call not in self._abandoned:
            self._abandoned.append(call)

    def signal(self, seq: int, timeout: DurableTimeout) -> None:
        """Deliver a timeout now if the code is in the midst of a call, else before its next one."""
        if not self.multi and not self._has_signal() and self._mark_signalled(seq):
            self.deliver(timeout)
        else:
            self.sequencer.push(seq, timeout)

    def _has_signal(self) -> bool:
        """Tell whether the code has had a signal that it has not acted on yet.

        The next one has to wait, for what the code does upon the first may lead out of its reach.
        A call that still blocks was out of reach of the first.
        """
        return any(slot.signalled and slot.task is None for slot in self.slots)

    def deliver(self, slot: Slot | DurableTimeout | None) -> None:
        """Give a call its result, or a scope its end (None: tell the code that it is cancelled)."""
        if slot is None:
            self.deliver_cancel(self.replica.seq)
        elif isinstance(slot, DurableTimeout):
            slot.scope.cancel()
        elif slot.task is not None:
            slot.delivered = True
            self.deliveries += self.multi
            task, slot.task = slot.task, None
            trio.lowlevel.reschedule(task)

    def deliver_cancel(self, seq: int) -> None:
        """Cancel the code's scope: the run was cancelled at `seq`."""
        if self.cancelled_at is None:
            self.cancelled_at = seq
            self._mark_signalled(seq)
            self.cancel_scope.cancel()

    def _mark_signalled(self, seq: int) -> bool:
        """Note in the call that is under way, if there is one, that its result comes too late."""
        late = [slot for slot in self.slots if not slot.resolved_before(seq)]
        for slot in late:
            slot.signalled = True
        return bool(late)

    async def _signals_first(self, record: Record | None) -> None:
        """Deliver the signals that come before what the code is about to get, one by one.

        One that reaches the code ends this: what the code does upon it may leave what the next one
        is about.
        """
        resolved = record is not None and record.resolution is not None
        before = record.resolved_at if record is not None and resolved else None
        while (taken := self.sequencer.take_signal(before)) is not None:
            seq, signal = taken
            if signal is None:
                self.deliver_cancel(seq)
            else:
                self.deliver(signal)
            await trio.lowlevel.checkpoint_if_cancelled()

    def deliver_late_cancel(self, before: int | None) -> None:
        """Deliver, at the code's end, a cancellation that was not yet; up to `before` if given."""
        while (taken := self.sequencer.take_signal(before)) is not None:
            seq, signal = taken
            if signal is None:
                self.deliver_cancel(seq)

    async def _replay_checkpoint(self) -> None:
        self._replayed += 1
        if self._replayed % REPLAY_STRIDE == 0:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    async def _wait_thawed(self) -> None:
        self.check_frozen()
        while self.frozen is not None and not self.evicted:
            self._thawed = trio.Event()
            await self._thawed.wait()
        if self.evicted:
            await trio.lowlevel.checkpoint()
            raise RunEvicted


def _nothing() -> None:
    """Stand in for a callback that is not wanted any more."""


def _no_epoch(_epoch: int) -> None:
    """Stand in for the callback that tells of a parking."""
