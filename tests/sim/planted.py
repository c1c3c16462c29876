"""Bugs that are planted into the product, one at a time, for as long as a `with` block lasts.

Each takes away something that a promise rests on: a fence, an order, a check, a sweep. A simulator
that does not find them is judged broken.

Length: a list; each bug is a few lines, and the table at the end wants to be seen beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from math import inf
from typing import Any, cast

import trio
from attrs import evolve, frozen

from aiki_actors import engine as e
from aiki_actors.engine import _decide, _decide_client, _projection
from aiki_actors.queue.redis import Redelivery
from aiki_actors.queue.redis._redelivery import Tracked
from aiki_actors.server._client_port import ServerClientPort
from aiki_actors.server._dispatcher import Dispatcher
from aiki_actors.server._keeper import Keeper
from aiki_actors.server._run_actor import RunActor
from aiki_actors.server._run_batch import Batch
from aiki_actors.server._storage_actor import StorageActor, Write
from aiki_actors.server._timers import Timers
from aiki_actors.storage import Appended, Change, ReadyRun
from aiki_actors.storage._memory import MemoryStorage
from aiki_actors.worker._attempt import Attempt
from aiki_actors.worker._attempts import TaskActor
from aiki_actors.worker._executor import Executor
from aiki_actors.worker._replica import _TAKE_IN, Record, Replica
from aiki_actors.worker._subscriber import Subscriber
from aiki_sdk import UnknownOutcome
from aiki_trio.testing import Fault, SimOptions

Planting = Callable[[], AbstractContextManager[None]]
NOTHING: tuple[e.Body, ...] = ()


@contextmanager
def patched(owner: Any, name: str, value: object) -> Generator[None]:
    """Replace an attribute of a module or class while the body runs."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def with_rule(command: type[Any], rule: Callable[..., Any]) -> Generator[None]:
    """Replace a rule of the engine; it is called with the real one first."""
    rules = cast("dict[type[Any], Any]", _decide.RULES)
    real = rules[command]
    rules[command] = lambda state, command, by: rule(real, state, command, by)
    try:
        yield
    finally:
        rules[command] = real


# -- claims ------------------------------------------------------------------------------------


def no_fence() -> AbstractContextManager[None]:
    """Whoever speaks about a running run is heard."""
    return patched(_decide, "stale", lambda state, command: state.claim is None)


def fence_by_number() -> AbstractContextManager[None]:
    """The claim's random id is not compared, its number alone."""
    return patched(
        _decide,
        "stale",
        lambda state, command: state.claim is None or state.claim.ref.epoch != command.claim.epoch,
    )


def no_sweep_for_claims() -> AbstractContextManager[None]:
    """Claims of workers that are gone stay theirs."""

    async def nothing(_self: Keeper) -> None:
        await trio.lowlevel.checkpoint()

    return patched(Keeper, "_lost_claims", nothing)


def claim_not_given_back() -> AbstractContextManager[None]:
    """A worker that stops executing a run keeps its claim."""

    async def nothing(_self: Executor, _release: e.ReleaseClaim) -> None:
        await trio.lowlevel.checkpoint()

    return patched(Executor, "_release", nothing)


def slot_not_given_back() -> AbstractContextManager[None]:
    """A worker's slot stays taken when its run has ended or parked."""
    return patched(Dispatcher, "withdraw", lambda self, worker_id: None)


def claimed_while_paused() -> AbstractContextManager[None]:
    """A pause does not keep a run out of the queue."""
    return patched(e.RunState, "ready", property(lambda self: self.phase is e.Phase.QUEUED))


# -- durability --------------------------------------------------------------------------------


def acknowledged_before_commit() -> AbstractContextManager[None]:
    """The storage actor answers, and then writes."""
    real = StorageActor.handle_batch

    async def early(self: StorageActor, messages: list[Write]) -> None:
        for message in messages:
            message.reply.send(Appended())
        await real(self, messages)

    return patched(StorageActor, "handle_batch", early)


def published_before_commit() -> AbstractContextManager[None]:
    """A run's watchers are shown what is about to be written."""
    real = RunActor._write

    async def early(self: RunActor, batch: Batch) -> bool:
        if batch.entries and self.state.created is not None:
            self._publish(batch)
        return await real(self, batch)

    return patched(RunActor, "_write", early)


def unknown_taken_for_written() -> AbstractContextManager[None]:
    """A write without a reply counts as made."""

    async def trusting(_self: RunActor, _change: Change, _unknown: UnknownOutcome) -> Any:
        await trio.lowlevel.checkpoint()
        return Appended()

    return patched(RunActor, "_read_back", trusting)


def two_runs_of_one_name() -> AbstractContextManager[None]:
    """The storage does not look whether a reference id is taken."""
    real = MemoryStorage._refusal

    def blind(self: MemoryStorage, one: Any, refused: set[str]) -> Any:
        found = real(self, one, refused)
        return None if type(found).__name__ == "ReferenceTaken" else found

    return patched(MemoryStorage, "_refusal", blind)


# -- tasks -------------------------------------------------------------------------------------


def attempts_miscounted() -> AbstractContextManager[None]:
    """Every failed attempt counts twice."""

    def twice(real: Any, state: e.RunState, command: e.RecordFailure, by: Any) -> Any:
        made = real(state, command, by)
        if not isinstance(made, tuple):
            return made
        bodies = cast("tuple[e.Body, ...]", made)
        return tuple(
            evolve(body, attempt=body.attempt + 1) if isinstance(body, e.AttemptFailed) else body
            for body in bodies
        )

    return with_rule(e.RecordFailure, twice)


def results_forgotten() -> AbstractContextManager[None]:
    """A replay does not find the results of tasks."""

    def deaf(self: Replica, entry: e.Entry, body: Any) -> None:
        if self.claim is not None and self.worker_id is not None and entry.seq > 3:
            real(self, entry, body)

    table = cast("dict[type[e.Body], Any]", _TAKE_IN)
    real = table[e.TaskSucceeded]
    return _entry_patched(table, e.TaskSucceeded, deaf)


@contextmanager
def _entry_patched(
    table: dict[type[e.Body], Any], key: type[e.Body], value: Any
) -> Generator[None]:
    before = table[key]
    table[key] = value
    try:
        yield
    finally:
        table[key] = before


def begun_forgotten() -> AbstractContextManager[None]:
    """That an at-most-once task begins is written nowhere."""

    async def attempt(self: TaskActor, attempt: Attempt, _record: Record) -> Any:
        return await self._attempt(attempt)

    return patched(TaskActor, "_attempt_once", attempt)


# -- waits -------------------------------------------------------------------------------------


def timer_of_another_wait() -> AbstractContextManager[None]:
    """A timer resolves whatever waits, due or not."""
    return patched(_decide_client, "is_due", lambda wait, by: wait.due_at is not None)


def woken_twice() -> AbstractContextManager[None]:
    """A sleep that is over is ended once more."""

    def twice(real: Any, state: e.RunState, command: e.Elapse, by: Any) -> Any:
        made = cast("tuple[e.Body, ...]", real(state, command, by))
        ended = tuple(body for body in made if isinstance(body, e.SleepEnded))
        return (*ended, *made)

    return with_rule(e.Elapse, twice)


def far_timers_forgotten() -> AbstractContextManager[None]:
    """Only timers that were set in this life of the server fire."""

    async def nothing(self: Timers) -> None:
        await trio.sleep_forever()

    return patched(Timers, "keep_loading", nothing)


def parks_over_what_happened() -> AbstractContextManager[None]:
    """A run parks although what it waits for has come meanwhile."""

    def blind(_real: Any, _state: e.RunState, command: e.ParkRun, _by: Any) -> Any:
        return (e.RunParked(),) if command.waiting else NOTHING

    return with_rule(e.ParkRun, blind)


# -- events ------------------------------------------------------------------------------------


def duplicate_event_accepted() -> AbstractContextManager[None]:
    """An event that is sent twice is there twice."""

    def again(real: Any, state: e.RunState, command: e.AcceptEvent, by: Any) -> Any:
        key = (command.name, command.reference_id or "")
        seen = key in state.references
        state.references.discard(key)
        try:
            return real(state, command, by)
        finally:
            if seen:
                state.references.add(key)

    return with_rule(e.AcceptEvent, again)


def newest_event_first() -> AbstractContextManager[None]:
    """A wait takes the item that came last."""

    def last(real: Any, state: e.RunState, command: e.AwaitEvent, by: Any) -> Any:
        made = real(state, command, by)
        if isinstance(made, tuple) and made and isinstance(made[0], e.EventConsumed):
            newest = state.unread[command.event][-1]
            return (e.EventConsumed(command.call, command.event, newest),)
        return made

    return with_rule(e.AwaitEvent, last)


def event_lost_beside_a_wait() -> AbstractContextManager[None]:
    """An event that comes while its wait is open is kept, and wakes nobody."""

    def kept(real: Any, state: e.RunState, command: e.AcceptEvent, by: Any) -> Any:
        made = real(state, command, by)
        return made[:1] if isinstance(made, tuple) else made

    return with_rule(e.AcceptEvent, kept)


# -- cancellation and children ------------------------------------------------------------------


def cancel_lost() -> AbstractContextManager[None]:
    """A cancellation of a run that is being executed is acknowledged, and that is all."""

    def deaf(real: Any, state: e.RunState, command: e.CancelRun, by: Any) -> Any:
        return NOTHING if state.phase is e.Phase.RUNNING else real(state, command, by)

    return with_rule(e.CancelRun, deaf)


def child_end_lost() -> AbstractContextManager[None]:
    """A run that has ended tells its parent nothing."""
    return patched(_projection, "_tell_parent", lambda state: iter(()))


def notices_not_repeated() -> AbstractContextManager[None]:
    """What one run owes another is said once."""

    async def nothing(_self: Keeper) -> None:
        await trio.lowlevel.checkpoint()

    return patched(Keeper, "_notices", nothing)


# -- several workers -----------------------------------------------------------------------------


@contextmanager
def stale_memory_resumed() -> Generator[None]:
    """A worker goes on from its memory of a run, whoever executed it since, and is told nothing."""
    real = Subscriber.assign

    def assign(self: Subscriber, assignment: Any) -> None:
        ref = self._refs.get(assignment.run_id)
        if ref is not None and ref.alive:
            self._warm.pop(assignment.run_id, None)
            self._epochs[assignment.run_id] = assignment.claim.epoch
            self._tell(ref, assignment.entries)
            return
        real(self, assignment)

    def deaf(_self: Subscriber, _run_id: str) -> None:
        """Keep the run."""

    with patched(Subscriber, "assign", assign), patched(Subscriber, "cool", deaf):
        yield


def poison_never_stalls() -> AbstractContextManager[None]:
    """A run that kills every worker is given to the next one, without end."""

    def lost(real: Any, state: e.RunState, command: e.LoseClaim, by: Any) -> Any:
        return real(state, command, by)[:1]

    return with_rule(e.LoseClaim, lost)


# -- the queue between server and workers ------------------------------------------------------


@contextmanager
def published_once() -> Generator[None]:
    """A server that has published a run never looks whether its message is still there."""

    def never_again(_runs: Redelivery, tracked: Tracked, *_rest: object) -> None:
        tracked.due_s = inf

    again = patched(Redelivery, "published", never_again)
    with again, patched(Redelivery, "recheck", lambda *_: None):
        yield


def queued_before_commit() -> AbstractContextManager[None]:
    """A run is published before it is written that it is ready."""
    real = RunActor._write

    async def early(self: RunActor, batch: Batch) -> bool:
        spec = self.state.created
        publisher = self.services.dispatcher.publisher
        if self.state.seq == len(batch.entries) and spec is not None and publisher is not None:
            key = (spec.namespace, spec.workflow, spec.version, spec.pool)
            publisher.publish(ReadyRun(self.run_id, *key, spec.priority, self.services.now()))
            await trio.sleep(0.5)
        return await real(self, batch)

    return patched(RunActor, "_write", early)


def pulled_slot_not_given_back() -> AbstractContextManager[None]:
    """A claim by a worker that pulls costs it a slot for good."""
    real = Dispatcher.freed

    def freed(self: Dispatcher, run_id: str, worker_id: str) -> None:
        if not self._pulling.get(worker_id):
            real(self, run_id, worker_id)

    return patched(Dispatcher, "freed", freed)


# -- what is kept, what is shown, how it ends ------------------------------------------------------


def timers_not_cleared() -> AbstractContextManager[None]:
    """A timer stays when what it was for is over."""
    return patched(Timers, "clear", lambda self, run_id: None)


def namespaces_mixed() -> AbstractContextManager[None]:
    """A run is shown to whoever knows its id."""

    async def get(self: ServerClientPort, run_id: str) -> Any:
        return await self.runs.view(run_id)

    return patched(ServerClientPort, "get", get)


def stop_without_deadline() -> AbstractContextManager[None]:
    """One part of the server takes its time to end, and cannot be cut off."""

    async def stopping(_self: StorageActor, _reason: Any) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)

    return patched(StorageActor, "stopping", stopping)


@frozen
class Shape:
    """What it takes to see a planted bug: its faults, and a cluster of a certain kind."""

    faults: tuple[Fault, ...] = ()
    crowded: bool = False
    queue: bool = False


LATE = Shape((Fault.LATE_DELIVERY, Fault.PARTITION, Fault.ONE_WAY, Fault.WORKER_CRASH))
CRASHES = Shape((Fault.WORKER_CRASH, Fault.SERVER_CRASH, Fault.CRASH_AT_CALL))
LOSSES = Shape((Fault.LOST_COMMITS, Fault.LATE_DELIVERY))
UNKNOWN = Shape((Fault.UNKNOWN_OUTCOME,))
CALM = Shape()
QUEUE = Shape((Fault.QUEUE_LOSS,), queue=True)
POISON = Shape((Fault.POISON,))
STOPS = Shape((Fault.SERVER_STOP, Fault.WORKER_STOP))
CROWDED = Shape(crowded=True)

PLANTED: Mapping[Planting, Shape] = {
    no_fence: LATE,
    fence_by_number: LOSSES,
    no_sweep_for_claims: CRASHES,
    claim_not_given_back: CALM,
    slot_not_given_back: CALM,
    claimed_while_paused: CALM,
    acknowledged_before_commit: CALM,
    published_before_commit: CALM,
    unknown_taken_for_written: UNKNOWN,
    two_runs_of_one_name: CALM,
    attempts_miscounted: CALM,
    results_forgotten: CRASHES,
    begun_forgotten: CRASHES,
    timer_of_another_wait: CALM,
    woken_twice: CALM,
    far_timers_forgotten: CRASHES,
    parks_over_what_happened: CALM,
    duplicate_event_accepted: CALM,
    newest_event_first: CALM,
    event_lost_beside_a_wait: CALM,
    cancel_lost: CALM,
    child_end_lost: CALM,
    notices_not_repeated: CRASHES,
    stale_memory_resumed: CROWDED,
    poison_never_stalls: POISON,
    published_once: QUEUE,
    queued_before_commit: Shape(queue=True),
    pulled_slot_not_given_back: Shape(queue=True),
    timers_not_cleared: CALM,
    namespaces_mixed: CALM,
    stop_without_deadline: STOPS,
}
"""What is planted, and what it takes to see it; which seed shows it is for the search."""


def options_for(seed: int | str, shape: Shape) -> SimOptions:
    """Return the options of a search: drawn from the seed, but for the shape, and not too long."""
    drawn = SimOptions.drawn(seed)
    options = evolve(
        drawn,
        faults=shape.faults,
        runs=min(drawn.runs, 12),
        safety_s=15.0,
        liveness_s=400.0,
        fault_gap_s=min(drawn.fault_gap_s, 2.0),
        skew_s=0.0,
        deferral=0.0,
        queue=shape.queue,
    )
    if shape.queue:
        # A message that is lost is missed after five minutes at the latest.
        options = evolve(options, liveness_s=1_200.0)
    if shape.crowded:
        options = evolve(options, workers=3, slots=1, warm=10, runs=20, latency_s=0.1)
    return options
