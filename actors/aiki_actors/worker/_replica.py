"""What a worker knows of a run: its journal, arranged for the code that replays it.

The replica takes entries strictly in order of seq, whichever way they came (with the claim, as the
reply to a command, pushed by the server), and keeps one `Record` per durable call. A call of the
running code *takes* a record; what was recorded and nobody took decides about divergence.

Invariant: `seq` is the seq of the last entry applied; an entry that came early waits for the gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from attrs import Factory, define

from aiki_actors import engine as e
from aiki_sdk import JsonValue, OutcomeUnknown
from aiki_sdk.protocol import RunStatus, Slept

if TYPE_CHECKING:
    from ._slots import Slot


@define(eq=False)
class Record:
    """One durable call, as far as the journal knows it.

    Attributes:
        counted: left over, it makes an unrecorded call a divergence (tasks and children of the
            present attempt of the workflow; sleeps and waits never do).
        start: the entry that began it, where there is one (sleep, wait, child).
        resolution: the entry that ended it; its seq orders deliveries.
        resolved_at: seq of `resolution`.
        attempts: attempts of a task that failed.
        retry: the last failed attempt while its delay may still run.
        retry_delay: how long that delay is, in microseconds.
        started: attempt of an at-most-once task that began and has no known outcome; 0: none.
        details: what the last heartbeat of the task carried, as far as that is recorded.
        slept: microseconds slept by ended sleeps of this call.
        taken: a call of the running code has it.
        slot: that call, while it waits for its result.

    """

    call: e.Call
    counted: bool = False
    start: e.Body | None = None
    resolution: e.Body | None = None
    resolved_at: int = 0
    at: e.Micros = e.Micros(0)
    attempts: int = 0
    retry: e.AttemptFailed | None = None
    retry_delay: int = 0
    started: int = 0
    details: JsonValue = None
    slept: int = 0
    taken: bool = False
    slot: Slot | None = None

    def resolve(self, entry: e.Entry) -> None:
        """Note how the call ended."""
        self.resolution = entry.body
        self.resolved_at = entry.seq
        self.at = entry.at

    @property
    def held(self) -> bool:
        """Whether the server keeps something for this call: an open wait, or an event's item."""
        return self.waiting or isinstance(self.resolution, e.EventConsumed)

    @property
    def waiting(self) -> bool:
        """Whether the server holds an open wait for this call."""
        if self.resolution is not None:
            return False
        return self.start is not None or (self.retry is not None and self.retry.waits)


@define(eq=False)
class Replica:
    """A run's journal as its executor sees it."""

    seq: int = 0
    created: e.RunCreated | None = None
    created_at: e.Micros = e.Micros(0)
    attempt: int = 1
    claim: e.ClaimRef | None = None
    worker_id: str | None = None
    unconsumed: int = 0
    """How many records `left_over` would return."""
    items: dict[int, e.EventAccepted] = Factory(lambda: dict[int, e.EventAccepted]())
    answers: dict[int, e.QuestionAnswered] = Factory(lambda: dict[int, e.QuestionAnswered]())
    child_ends: dict[str, e.Entry] = Factory(lambda: dict[str, e.Entry]())
    records: dict[e.Call, Record] = Factory(lambda: dict[e.Call, Record]())
    touched: list[Record] = Factory(lambda: list[Record]())
    _leftovers: dict[str, list[Record]] = Factory(lambda: dict[str, list[Record]]())
    _child_waits: dict[str, list[Record]] = Factory(lambda: dict[str, list[Record]]())
    _early: dict[int, e.Entry] = Factory(lambda: dict[int, e.Entry]())

    def apply(self, entries: Iterable[e.Entry]) -> list[e.Entry]:
        """Take entries in; return those that were applied now, in order of seq."""
        applied: list[e.Entry] = []
        for entry in entries:
            if entry.seq != self.seq + 1:
                if entry.seq > self.seq:
                    self._early[entry.seq] = entry
                continue
            self._apply(entry)
            applied.append(entry)
            while self._early and (early := self._early.pop(self.seq + 1, None)) is not None:
                self._apply(early)
                applied.append(early)
        return applied

    def take(self, call: e.Call) -> Record | None:
        """Return the record of this very call, which the caller now has; None if there is none."""
        record = self.records.get(call)
        if record is None or record.taken:
            return None
        return self._taken(record)

    def take_leftover(self, address: str, before: int | None = None) -> Record | None:
        """Return the oldest record of this address that no call has, whichever branch made it.

        Args:
            address: what the call is.
            before: only one that was resolved before this seq; None: any.

        """
        leftovers = self._leftovers.get(address)
        while leftovers:
            record = leftovers[0]
            if not record.taken and self.records.get(record.call) is record:
                if before is not None and not 0 < record.resolved_at < before:
                    return None
                del leftovers[0]
                return self._taken(record)
            del leftovers[0]
        return None

    def free_name(self, call: e.Call) -> e.Call:
        """Return the call's name, or the next one of which no other branch has the entry."""
        while (record := self.records.get(call)) is not None and record.taken:
            call = e.Call(call.address, call.branch, call.index + 1)
        return call

    def open(self, call: e.Call) -> Record:
        """Make the record of a call that is being made for the first time."""
        record = Record(call, taken=True)
        self.records[call] = record
        return record

    def left_over(self) -> list[Record]:
        """Return the records whose being left over forbids an unrecorded call, oldest first."""
        found = [r for r in self.records.values() if r.counted and not r.taken]
        return sorted(found, key=lambda record: record.resolved_at)

    def _taken(self, record: Record) -> Record:
        record.taken = True
        if record.counted:
            self.unconsumed -= 1
        return record

    def _record(self, call: e.Call, *, counted: bool) -> Record:
        record = self.records.get(call)
        if record is None:
            record = self.records[call] = Record(call, counted)
            self._leftovers.setdefault(call.address, []).append(record)
            self.unconsumed += counted
        elif counted and not record.counted and not record.taken and record.resolution is None:
            # A heartbeat came first, which does not count; what came now does.
            record.counted = True
            self.unconsumed += 1
        return record

    def open_ended(self, call: e.Call, child_id: str) -> Record | None:
        """Open a record for a wait for a child that has ended; None if it has not."""
        end = self.child_ends.get(child_id)
        if end is None:
            return None
        record = self.open(call)
        record.resolve(end)
        return record

    def await_child(self, child_id: str, record: Record) -> bool:
        """Let the child's end resolve the record; True if it has come already, and did."""
        end = self.child_ends.get(child_id)
        if end is not None:
            self._resolve(record, end)
            return True
        waiting = self._child_waits.setdefault(child_id, [])
        if record not in waiting:
            waiting.append(record)
        return False

    def take_touched(self) -> list[Record]:
        """Return the records that were resolved, or became due again, since the last call."""
        touched, self.touched = self.touched, []
        return touched

    def _resolve(self, record: Record, entry: e.Entry) -> None:
        record.resolve(entry)
        self.touched.append(record)

    def _apply(self, entry: e.Entry) -> None:
        self.seq = entry.seq
        take_in = _TAKE_IN.get(type(entry.body))
        if take_in is not None:
            take_in(self, entry, entry.body)

    def on_counted_end(self, entry: e.Entry, body: e.TaskSucceeded | e.TaskFailed) -> None:
        self._resolve(self._record(body.call, counted=True), entry)

    def on_task_failed(self, entry: e.Entry, body: e.TaskFailed) -> None:
        self.on_counted_end(entry, body)
        if body.error.code != OutcomeUnknown.code:
            self.records[body.call].started = 0

    def on_free_end(
        self,
        entry: e.Entry,
        body: e.EventConsumed
        | e.WaitTimedOut
        | e.TimeoutReached
        | e.ValueRecorded
        | e.ValuePublished
        | e.EventSent,
    ) -> None:
        self._resolve(self._record(body.call, counted=False), entry)

    def on_answered(self, entry: e.Entry, body: e.QuestionAnswered) -> None:
        self.answers[body.item] = body
        self._resolve(self._record(body.call, counted=False), entry)

    def on_attempt_failed(self, entry: e.Entry, body: e.AttemptFailed) -> None:
        record = self._record(body.call, counted=True)
        record.attempts, record.retry, record.started = body.attempt, body, 0
        record.retry_delay = body.retry_at - entry.at
        if body.details is not None:
            record.details = body.details

    def on_task_started(self, _entry: e.Entry, body: e.TaskStarted) -> None:
        self._record(body.call, counted=True).started = body.attempt

    def on_heartbeat(self, _entry: e.Entry, body: e.HeartbeatRecorded) -> None:
        self._record(body.call, counted=False).details = body.details

    def on_retry_due(self, _entry: e.Entry, body: e.RetryDue) -> None:
        record = self.records.get(body.call)
        if record is not None:
            record.retry = None
            self.touched.append(record)

    def on_sleep_started(self, _entry: e.Entry, body: e.SleepStarted) -> None:
        record = self._record(body.call, counted=False)
        record.start, record.resolution = body, None

    def on_timeout_started(self, _entry: e.Entry, body: e.TimeoutStarted) -> None:
        self._record(body.call, counted=False).start = body

    def on_event_wait(self, _entry: e.Entry, body: e.EventWaitStarted) -> None:
        self._record(body.call, counted=False).start = body

    def on_child_wait(self, _entry: e.Entry, body: e.ChildWaitStarted) -> None:
        record = self._record(body.call, counted=False)
        record.start = body
        waiting = self._child_waits.setdefault(body.child_id, [])
        if record not in waiting:
            waiting.append(record)

    def on_void(self, _entry: e.Entry, body: e.WaitAbandoned | e.EventReturned) -> None:
        record = self._record(body.call, counted=False)
        record.start = record.resolution = None
        record.slept = 0

    def on_event_accepted(self, entry: e.Entry, body: e.EventAccepted) -> None:
        self.items[entry.seq] = body

    def on_child_started(self, entry: e.Entry, body: e.ChildStarted) -> None:
        record = self._record(body.call, counted=True)
        record.start = body
        self._resolve(record, entry)

    def on_child_ended(self, entry: e.Entry, body: e.ChildEnded) -> None:
        self.child_ends[body.child_id] = entry
        for record in self._child_waits.pop(body.child_id, ()):
            if record.resolution is None:
                self._resolve(record, entry)

    def on_claimed(self, _entry: e.Entry, body: e.RunClaimed) -> None:
        self.claim = e.ClaimRef(body.epoch, body.claim_id)
        self.worker_id = body.worker_id

    def on_unclaimed(self, _entry: e.Entry, _body: e.Body) -> None:
        self.claim = None

    def on_created(self, entry: e.Entry, body: e.RunCreated) -> None:
        self.created, self.created_at = body, entry.at

    def on_sleep_ended(self, entry: e.Entry, body: e.SleepEnded) -> None:
        record = self._record(body.call, counted=False)
        if isinstance(record.start, e.SleepStarted) and body.outcome is Slept.ELAPSED:
            record.slept += max(record.start.duration, 0)
        self._resolve(record, entry)

    def on_next_attempt(self, _entry: e.Entry, body: e.RunAttemptFailed | e.RunRetried) -> None:
        """Keep what the next attempt may use again, as `evolve` does on the server.

        What the failed attempt recorded is used if the code asks for it; that the new attempt
        takes another way is no divergence. An at-most-once task that began and of which nobody
        knows how it ended begins again only if a person sent the run round.
        """
        keep_begun = isinstance(body, e.RunAttemptFailed)
        self.claim = None
        self.attempt += 1
        failed = {
            child_id
            for child_id, end in self.child_ends.items()
            if isinstance(end.body, e.ChildEnded) and end.body.status is not RunStatus.COMPLETED
        }
        kept: dict[e.Call, Record] = {}
        for call, record in self.records.items():
            begun = record.started and not isinstance(record.resolution, e.TaskSucceeded)
            if begun and keep_begun:
                kept[call] = Record(call, started=record.started)
            elif _outlives_attempt(record.resolution, failed):
                record.counted = record.taken = False
                kept[call] = record
        self.records = kept
        self.unconsumed = 0
        self.touched = []


def _outlives_attempt(body: e.Body | None, failed_children: set[str]) -> bool:
    """Tell whether the next attempt of the workflow may use what a call ended with."""
    match body:
        case None | e.TaskFailed() | e.WaitTimedOut() | e.TimeoutReached():
            return False
        case e.ChildStarted() | e.ChildEnded():
            return body.child_id not in failed_children
        case _:
            return True


_TAKE_IN: Final[Mapping[type[e.Body], Callable[[Replica, e.Entry, Any], None]]] = {
    e.TaskSucceeded: Replica.on_counted_end,
    e.TaskFailed: Replica.on_task_failed,
    e.AttemptFailed: Replica.on_attempt_failed,
    e.TaskStarted: Replica.on_task_started,
    e.HeartbeatRecorded: Replica.on_heartbeat,
    e.RetryDue: Replica.on_retry_due,
    e.SleepStarted: Replica.on_sleep_started,
    e.SleepEnded: Replica.on_sleep_ended,
    e.EventAccepted: Replica.on_event_accepted,
    e.EventWaitStarted: Replica.on_event_wait,
    e.EventConsumed: Replica.on_free_end,
    e.EventReturned: Replica.on_void,
    e.ChildWaitStarted: Replica.on_child_wait,
    e.WaitTimedOut: Replica.on_free_end,
    e.TimeoutStarted: Replica.on_timeout_started,
    e.TimeoutReached: Replica.on_free_end,
    e.WaitAbandoned: Replica.on_void,
    e.ChildStarted: Replica.on_child_started,
    e.ChildEnded: Replica.on_child_ended,
    e.ValueRecorded: Replica.on_free_end,
    e.ValuePublished: Replica.on_free_end,
    e.EventSent: Replica.on_free_end,
    e.QuestionAnswered: Replica.on_answered,
    e.RunClaimed: Replica.on_claimed,
    e.RunParked: Replica.on_unclaimed,
    e.ClaimReleased: Replica.on_unclaimed,
    e.ClaimLost: Replica.on_unclaimed,
    e.RunStalled: Replica.on_unclaimed,
    e.RunCompleted: Replica.on_unclaimed,
    e.RunContinued: Replica.on_unclaimed,
    e.RunFailed: Replica.on_unclaimed,
    e.RunCancelled: Replica.on_unclaimed,
    e.RunCreated: Replica.on_created,
    e.RunAttemptFailed: Replica.on_next_attempt,
    e.RunRetried: Replica.on_next_attempt,
}
"""What each kind of entry means to a worker; the rest concerns the server alone."""
