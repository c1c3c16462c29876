"""The oracle of one run: reads its journal as it is written, and holds every entry to the promises.

It is written apart from the engine on purpose and shares nothing with it but the entries and the
transition table, so that a mistake in the engine's rules is not repeated here.

What it checks with every entry: the path (P4), results written once and attempts counted right
(P2), claims (P3), the mailbox of each event (P5), waits and their times (P6), children (P7), and
that a pause, a cancellation and an end mean what they say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import Factory, define

from aiki_actors import engine as e
from aiki_sdk.protocol import Slept

from ._breach import Broken, OpenWait

SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
LATE_S: Final = 1.5
"""Half a second more than a timer may be late without a fault: calls of ports take time here."""


@define(eq=False)
class RunOracle:
    """What one run's journal says so far.

    Attributes:
        claims: the claim in force before each entry, by seq.
        results: per task call how it ended.
        visible: per successful task call the seq of its result.
        rewound: a failover lost entries of it, of which its worker knows.
        starts_over: entries after which an attempt that had begun may begin again.
        lost_in_row: claims lost with nothing between them but further claims.
        lost_max: how many of these there may be before it has to stall.

    """

    run_id: str
    seq: int = 0
    phase: e.Phase = e.Phase.NEW
    created: e.RunCreated | None = None
    created_at: int = 0
    at: int = 0
    paused: bool = False
    cancel: e.CancelRequested | None = None
    end: e.Body | None = None
    claim: e.ClaimRef | None = None
    worker_id: str | None = None
    epoch: int = 0
    claims: list[e.ClaimRef | None] = Factory(lambda: list[e.ClaimRef | None]())
    starts_over: int = 0
    lost_in_row: int = 0
    lost_max: int = 1 << 30
    results: dict[e.Call, str] = Factory(lambda: dict[e.Call, str]())
    failed: dict[e.Call, int] = Factory(lambda: dict[e.Call, int]())
    visible: dict[e.Call, int] = Factory(lambda: dict[e.Call, int]())
    waits: dict[e.Call, OpenWait] = Factory(lambda: dict[e.Call, OpenWait]())
    unread: dict[str, list[int]] = Factory(lambda: dict[str, list[int]]())
    items: dict[int, e.EventAccepted] = Factory(lambda: dict[int, e.EventAccepted]())
    taken: dict[e.Call, int] = Factory(lambda: dict[e.Call, int]())
    references: set[tuple[str, str]] = Factory(lambda: set[tuple[str, str]]())
    children: dict[str, e.ChildEnded | None] = Factory(lambda: dict[str, e.ChildEnded | None]())
    child_calls: dict[str, e.ChildStarted] = Factory(lambda: dict[str, e.ChildStarted]())
    settled: set[e.Call] = Factory(lambda: set[e.Call]())
    sent: list[e.EventSent] = Factory(lambda: list[e.EventSent]())
    punctual_from: int | None = None
    cancelled: bool = False
    was_paused: bool = False
    retries: int = 0
    rewound: bool = False

    def take(self, entry: e.Entry) -> None:
        """Read the next entry.

        Raises:
            Broken: it breaks a promise.

        """
        body = entry.body
        if entry.seq != self.seq + 1:
            raise Broken("P4", f"entry {entry.seq} follows entry {self.seq}")
        phase = e.next_phase(self.phase, body)
        if phase is None:
            raise Broken("P4", f"{body.kind} (entry {entry.seq}) is illegal in {self.phase}")
        self.claims.append(self.claim)
        self.seq, self.at = entry.seq, entry.at
        before, self.phase = self.phase, phase
        if not isinstance(body, e.RunClaimed | e.RunQueued):
            self.lost_in_row = self.lost_in_row + 1 if isinstance(body, e.ClaimLost) else 0
        if phase.terminal and not before.terminal:
            self.end = body
            self.waits.clear()
            self.paused = False
        if before is e.Phase.RUNNING and phase is not e.Phase.RUNNING:
            self.claim = self.worker_id = None
        check = _CHECKS.get(type(body))
        if check is not None:
            check(self, body, entry)

    def after_change(self) -> None:
        """Check what must hold whenever a change is complete: no event was lost while waiting."""
        for wait in self.waits.values():
            due = wait.due_at is not None and wait.due_at <= self.at
            if wait.kind == "event" and self.unread.get(wait.name) and not due:
                raise Broken(
                    "P5", f"event {wait.name!r} is unread after entry {self.seq}, and waited for"
                )
        if self.lost_in_row >= self.lost_max and self.cancel is None:
            raise Broken("P1", f"it lost {self.lost_in_row} claims in a row, and did not stall")
        if self.phase is e.Phase.WAITING and not self.waits:
            raise Broken("P1", f"it waits after entry {self.seq}, for nothing")

    # -- claims ------------------------------------------------------------------------------

    def claimed(self, body: e.RunClaimed, _entry: e.Entry) -> None:
        """A claim: numbers rise by one, and a paused run is nobody's."""
        if body.epoch != self.epoch + 1:
            raise Broken("P3", f"epoch {body.epoch} follows {self.epoch}")
        if self.paused:
            raise Broken("P4", "it was claimed while it was paused")
        self.epoch = body.epoch
        self.claim = e.ClaimRef(body.epoch, body.claim_id)
        self.worker_id = body.worker_id
        self.waits.pop(e.RUN_RETRY_CALL, None)

    def start_over(self, _body: e.Body, _entry: e.Entry) -> None:
        """Hear that what had begun may begin again."""
        self.starts_over += 1

    def parked(self, _body: e.RunParked, _entry: e.Entry) -> None:
        """Parking needs something to wait for."""
        if not self.waits:
            raise Broken("P1", "it was parked while it waits for nothing")

    def queued(self, _body: e.RunQueued, _entry: e.Entry) -> None:
        """The delay before the next attempt is over."""
        self.waits.pop(e.RUN_RETRY_CALL, None)

    # -- tasks -------------------------------------------------------------------------------

    def _outcome(self, call: e.Call, attempt: int) -> None:
        if call in self.results:
            raise Broken("P2", f"the result of {call} was written twice")
        before = self.failed.get(call, 0)
        if attempt != before + 1 and not (self._copied() or self.rewound):
            raise Broken("P2", f"attempt {attempt} of {call} ended after attempt {before}")
        wait = self.waits.get(call)
        if wait is not None and wait.kind == "retry":
            raise Broken("P6", f"{call} ended while it waited for its next attempt")

    def _copied(self) -> bool:
        """Whether this entry is history of another run: a fork keeps results, not failures."""
        return self.worker_id == e.FORK_WORKER

    def succeeded(self, body: e.TaskSucceeded, entry: e.Entry) -> None:
        """A result."""
        self._outcome(body.call, body.attempt)
        self.results[body.call] = SUCCEEDED
        self.visible[body.call] = entry.seq

    def task_failed(self, body: e.TaskFailed, _entry: e.Entry) -> None:
        """A failure for good."""
        if body.error.code != "outcome-unknown":
            self._outcome(body.call, body.attempt)
        self.results[body.call] = FAILED
        self.waits.pop(body.call, None)

    def attempt_failed(self, body: e.AttemptFailed, _entry: e.Entry) -> None:
        """A failure that is followed by another attempt."""
        self._outcome(body.call, body.attempt)
        self.failed[body.call] = body.attempt
        if body.waits:
            self.waits[body.call] = OpenWait("retry", str(body.call), body.retry_at)

    # -- waits -------------------------------------------------------------------------------

    def _close(self, call: e.Call, entry: e.Entry, kinds: tuple[str, ...], *, timed: bool) -> None:
        wait = self.waits.pop(call, None)
        if wait is None or wait.kind not in kinds:
            raise Broken("P6", f"{entry.body.kind} for {call}, which does not wait")
        if not timed or self._copied():
            return
        if wait.due_at is None or entry.at < wait.due_at:
            raise Broken("P6", f"{call} was resolved at {entry.at}, and is due at {wait.due_at}")
        late_s = (entry.at - max(wait.due_at, wait.since)) / e.SECOND
        if self.punctual_from is not None and wait.due_at >= self.punctual_from and late_s > LATE_S:
            raise Broken("P6", f"{call} was resolved {late_s:.3f} s late, without a fault")

    def sleep_started(self, body: e.SleepStarted, entry: e.Entry) -> None:
        """A sleep begins, or ends earlier than it was to."""
        self.waits[body.call] = OpenWait("sleep", str(body.call), body.due_at, entry.at)

    def sleep_ended(self, body: e.SleepEnded, entry: e.Entry) -> None:
        """A sleep is over, not early."""
        self._close(body.call, entry, ("sleep",), timed=body.outcome is not Slept.WOKEN)

    def retry_due(self, body: e.RetryDue, entry: e.Entry) -> None:
        """A retry is due, not early."""
        self._close(body.call, entry, ("retry", "run-retry"), timed=True)

    def event_wait(self, body: e.EventWaitStarted, _entry: e.Entry) -> None:
        """A wait for an event; there is none to be had now."""
        if body.call in self.waits:
            raise Broken("P5", f"{body.call} waits twice")
        self.waits[body.call] = OpenWait("event", body.event, body.due_at)

    def child_wait(self, body: e.ChildWaitStarted, _entry: e.Entry) -> None:
        """A wait for a child, which lives."""
        if self.children.get(body.child_id) is not None:
            raise Broken("P7", f"{body.call} waits for child {body.child_id}, which has ended")
        self.waits[body.call] = OpenWait("child", body.child_id, body.due_at)

    def timed_out(self, body: e.WaitTimedOut, entry: e.Entry) -> None:
        """A wait's own time is over."""
        if body.call in self.waits:
            self._close(body.call, entry, ("event", "child"), timed=True)

    def timeout_started(self, body: e.TimeoutStarted, _entry: e.Entry) -> None:
        """A durable timeout begins."""
        self.waits[body.call] = OpenWait("timeout", str(body.call), body.due_at)

    def timeout_reached(self, body: e.TimeoutReached, entry: e.Entry) -> None:
        """A durable timeout is over."""
        if body.call in self.waits:
            self._close(body.call, entry, ("timeout",), timed=True)

    def abandoned(self, body: e.WaitAbandoned, _entry: e.Entry) -> None:
        """A wait was given up."""
        if self.waits.pop(body.call, None) is None:
            raise Broken("P6", f"{body.call} was given up, and does not wait")

    # -- events ------------------------------------------------------------------------------

    def accepted(self, body: e.EventAccepted, entry: e.Entry) -> None:
        """An event came; one with this reference id comes once."""
        if body.reference_id is not None:
            key = (body.name, body.reference_id)
            if key in self.references:
                raise Broken("P5", f"event {body.name!r} {body.reference_id!r} was accepted twice")
            self.references.add(key)
        self.items[entry.seq] = body
        self.unread.setdefault(body.name, []).append(entry.seq)

    def consumed(self, body: e.EventConsumed, _entry: e.Entry) -> None:
        """An event was taken: the oldest that is unread, by a call that has none yet."""
        unread = self.unread.get(body.event, [])
        if body.item not in unread:
            raise Broken("P5", f"item {body.item} of {body.event!r} was taken, and is not there")
        if body.item != min(unread):
            raise Broken("P5", f"item {body.item} of {body.event!r} was taken before {min(unread)}")
        if body.call in self.taken:
            raise Broken("P5", f"{body.call} was given two items")
        unread.remove(body.item)
        self.waits.pop(body.call, None)
        self.taken[body.call] = body.item

    def returned(self, body: e.EventReturned, _entry: e.Entry) -> None:
        """An event was not used after all."""
        if self.taken.pop(body.call, None) != body.item:
            raise Broken("P5", f"{body.call} returns item {body.item}, and does not have it")
        self.unread.setdefault(body.event, []).append(body.item)

    def _once(self, call: e.Call, kind: str) -> None:
        if call in self.settled:
            raise Broken("P2", f"{kind} of {call} was written twice")
        self.settled.add(call)

    def said(
        self, body: e.ValueRecorded | e.ValuePublished | e.QuestionAnswered, _entry: e.Entry
    ) -> None:
        """Something was said, once."""
        self._once(body.call, body.kind)

    def event_sent(self, body: e.EventSent, _entry: e.Entry) -> None:
        """An event goes to another run, once."""
        self._once(body.call, body.kind)
        self.sent.append(body)

    # -- children ----------------------------------------------------------------------------

    def child_started(self, body: e.ChildStarted, _entry: e.Entry) -> None:
        """A child, with an id of its own."""
        if body.child_id in self.children:
            raise Broken("P7", f"child {body.child_id} was started twice")
        self.children[body.child_id] = None
        self.child_calls[body.child_id] = body

    def child_ended(self, body: e.ChildEnded, _entry: e.Entry) -> None:
        """A child's end, once."""
        if body.child_id not in self.children:
            raise Broken("P7", f"child {body.child_id} ended, and was never started")
        if self.children[body.child_id] is not None:
            raise Broken("P7", f"the end of child {body.child_id} was written twice")
        self.children[body.child_id] = body
        for call in [
            c for c, w in self.waits.items() if w.kind == "child" and w.name == body.child_id
        ]:
            del self.waits[call]

    # -- the run -----------------------------------------------------------------------------

    def on_created(self, body: e.RunCreated, entry: e.Entry) -> None:
        """The run begins."""
        self.created, self.created_at = body, entry.at

    def on_paused(self, _body: e.RunPaused, _entry: e.Entry) -> None:
        """A pause, once."""
        if self.paused:
            raise Broken("P4", "it was paused twice")
        self.paused = self.was_paused = True

    def on_resumed(self, _body: e.RunResumed, _entry: e.Entry) -> None:
        """A pause ends that had begun."""
        if not self.paused:
            raise Broken("P4", "it was resumed, and not paused")
        self.paused = False

    def on_cancel(self, body: e.CancelRequested, _entry: e.Entry) -> None:
        """A cancellation, once."""
        if self.cancel is not None:
            raise Broken("P4", "its cancellation was asked for twice")
        self.cancel, self.paused = body, False
        self.cancelled = True

    def on_attempt_failed(self, body: e.RunAttemptFailed, _entry: e.Entry) -> None:
        """The next attempt of the workflow: failed tasks begin afresh, waits end."""
        self._next_attempt()
        self.waits[e.RUN_RETRY_CALL] = OpenWait("run-retry", "run", body.retry_at)

    def on_retried(self, _body: e.RunRetried, _entry: e.Entry) -> None:
        """An operator's retry."""
        self._next_attempt()
        self.cancel = self.end = None
        self.retries += 1

    def _next_attempt(self) -> None:
        self.starts_over += 1
        self.waits.clear()
        self.settled.clear()
        self.failed.clear()
        self.results = {c: r for c, r in self.results.items() if r == SUCCEEDED}


_CHECKS: Final[Mapping[type[e.Body], Callable[[RunOracle, Any, e.Entry], None]]] = {
    e.RunCreated: RunOracle.on_created,
    e.RunClaimed: RunOracle.claimed,
    e.ClaimLost: RunOracle.start_over,
    e.ClaimReleased: RunOracle.start_over,
    e.RunParked: RunOracle.parked,
    e.RunQueued: RunOracle.queued,
    e.TaskSucceeded: RunOracle.succeeded,
    e.TaskFailed: RunOracle.task_failed,
    e.AttemptFailed: RunOracle.attempt_failed,
    e.SleepStarted: RunOracle.sleep_started,
    e.SleepEnded: RunOracle.sleep_ended,
    e.RetryDue: RunOracle.retry_due,
    e.EventWaitStarted: RunOracle.event_wait,
    e.ChildWaitStarted: RunOracle.child_wait,
    e.WaitTimedOut: RunOracle.timed_out,
    e.TimeoutStarted: RunOracle.timeout_started,
    e.TimeoutReached: RunOracle.timeout_reached,
    e.WaitAbandoned: RunOracle.abandoned,
    e.EventAccepted: RunOracle.accepted,
    e.EventConsumed: RunOracle.consumed,
    e.EventReturned: RunOracle.returned,
    e.ValueRecorded: RunOracle.said,
    e.ValuePublished: RunOracle.said,
    e.QuestionAnswered: RunOracle.said,
    e.EventSent: RunOracle.event_sent,
    e.ChildStarted: RunOracle.child_started,
    e.ChildEnded: RunOracle.child_ended,
    e.RunPaused: RunOracle.on_paused,
    e.RunResumed: RunOracle.on_resumed,
    e.CancelRequested: RunOracle.on_cancel,
    e.RunStalled: RunOracle.start_over,
    e.RunAttemptFailed: RunOracle.on_attempt_failed,
    e.RunRetried: RunOracle.on_retried,
}
"""What each kind of entry is held to, besides its place in the path."""
