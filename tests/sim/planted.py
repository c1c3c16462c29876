"""Bugs that are planted into the product, one at a time, for as long as a `with` block lasts.

Each takes away something that a promise rests on: a fence, an order, a check, a sweep. A simulator
that does not find them is judged broken.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import trio
from attrs import evolve

from aiki_actors import engine as e
from aiki_actors.engine import _decide, _decide_client, _decide_worker, _projection
from aiki_actors.server._dispatcher import Dispatcher
from aiki_actors.server._keeper import Keeper
from aiki_actors.server._run_actor import Batch, RunActor
from aiki_actors.server._storage_actor import StorageActor, Write
from aiki_actors.server._timers import Timers
from aiki_actors.storage import Appended, Change
from aiki_actors.storage._memory import MemoryStorage
from aiki_actors.worker._branches import Branch, BranchTracker
from aiki_actors.worker._executor import Executor
from aiki_actors.worker._replica import Replica
from aiki_actors.worker._subscriber import Subscriber
from aiki_sdk import UnknownOutcome, current_workflow

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
        lambda state, command: (
            state.claim is None or state.claim.ref.epoch != command.claim.epoch
        ),
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

    table = cast("dict[type[e.Body], Any]", __import__(Replica.__module__, fromlist=["x"])._TAKE_IN)
    real = table[e.TaskSucceeded]
    return _entry_patched(table, e.TaskSucceeded, deaf)


@contextmanager
def _entry_patched(table: dict[type[e.Body], Any], key: type[e.Body], value: Any) -> Iterator[None]:
    before = table[key]
    table[key] = value
    try:
        yield
    finally:
        table[key] = before


def begun_forgotten() -> AbstractContextManager[None]:
    """A replay does not see that an at-most-once task had begun."""
    table = cast("dict[type[e.Body], Any]", __import__(Replica.__module__, fromlist=["x"])._TAKE_IN)
    return _entry_patched(table, e.TaskStarted, lambda self, entry, body: None)


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


def child_end_written_twice() -> AbstractContextManager[None]:
    """A parent takes the end of a child as often as it is told."""

    def again(real: Any, state: e.RunState, command: e.EndChild, by: Any) -> Any:
        child = state.children.get(command.child_id)
        if child is not None and child.status is not None and not state.phase.terminal:
            return (e.ChildEnded(command.child_id, command.status, command.output, command.error),)
        return real(state, command, by)

    return with_rule(e.EndChild, again)


# -- several workers -----------------------------------------------------------------------------


def stale_memory_resumed() -> AbstractContextManager[None]:
    """A worker that parked a run goes on from its memory, whoever executed it since."""
    real = Subscriber.assign

    def assign(self: Subscriber, assignment: Any) -> None:
        ref = self._refs.get(assignment.run_id)
        if ref is not None and ref.alive:
            self._warm.pop(assignment.run_id, None)
            self._epochs[assignment.run_id] = assignment.claim.epoch
            self._tell(ref, assignment.entries)
            return
        real(self, assignment)

    return patched(Subscriber, "assign", assign)


def branches_followed_by_all() -> AbstractContextManager[None]:
    """Each worker of the loop names the branches of every other worker's runs too."""

    def task_spawned(self: BranchTracker, task: trio.lowlevel.Task) -> None:
        branch = task.context.get(current_workflow)
        if not isinstance(branch, Branch):
            return
        nursery = task.parent_nursery
        opener = None if nursery is None else nursery.parent_task.context.get(current_workflow)
        if not isinstance(opener, Branch) or opener.execution is not branch.execution:
            task.context.run(current_workflow.set, None)
            return
        task.context.run(current_workflow.set, branch.child())
        execution = branch.execution
        if execution not in self._followed:
            self._follow(execution)
            execution.branched()
        execution.tracks.live += 1
        self._steps.owners[task] = execution

    return patched(BranchTracker, "task_spawned", task_spawned)


PLANTED: Mapping[str, Planting] = {
    plant.__name__: plant
    for plant in (
        no_fence,
        fence_by_number,
        no_sweep_for_claims,
        claim_not_given_back,
        slot_not_given_back,
        claimed_while_paused,
        acknowledged_before_commit,
        published_before_commit,
        unknown_taken_for_written,
        two_runs_of_one_name,
        attempts_miscounted,
        results_forgotten,
        begun_forgotten,
        timer_of_another_wait,
        woken_twice,
        far_timers_forgotten,
        parks_over_what_happened,
        duplicate_event_accepted,
        newest_event_first,
        event_lost_beside_a_wait,
        cancel_lost,
        child_end_lost,
        notices_not_repeated,
        child_end_written_twice,
        stale_memory_resumed,
        branches_followed_by_all,
    )
}
